/* Quantizing: each value to a level, in one pass, with the statistics of all where they are wanted.

The operations are those of hqtool.core.quantize in float32, in its order, so that the bits are the
same as in torch. A block of values stays in the cache from one loop to the next.
*/
#include "sums.h"

/* --- noise: hqtool/kernels/noise.py says what it is --- */

INLINE uint32_t mixed(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x21F0AAADu;
    x ^= x >> 15;
    x *= 0xD35A2D97u;
    return x ^ x >> 15;
}

typedef struct {
    uint32_t first, second;
} Key;

INLINE float noise_at(uint32_t index, Key key)
{
    return (float)(int32_t)(mixed(mixed(index ^ key.first) ^ key.second) >> 8) * 0x1p-24f;
}

/* The key of a block: a word of it takes the upper half of the block's first index. */
INLINE Key key_of_block(Key key, int64_t start)
{
    return (Key){key.first, key.second ^ (uint32_t)(start >> 32)};
}

/* --- levels --- */

/* The levels lowest ... highest, times scale. Uniform ones are the whole numbers. Between those of
floating point the gap is relative_gap times the power of two below a value, or times the least or
the greatest power; `below` and `above` are the levels that would follow beyond the ends. No value
from lo to hi is clipped, and every other one to nearest. */
typedef struct {
    float scale, lowest, highest, lo, hi;
    float relative_gap, least_power, greatest_power, below, above;
} Grid;

INLINE float within(float y, float lowest, float highest)
{
    y = y < lowest ? lowest : y; /* NaN stays */
    return y > highest ? highest : y;
}

INLINE float floating_gap(float y, const Grid *grid)
{
    uint32_t bits;
    float power;
    memcpy(&bits, &y, sizeof bits);
    bits &= 0x7F800000u;
    memcpy(&power, &bits, sizeof power);
    return within(power, grid->least_power, grid->greatest_power) * grid->relative_gap;
}

/* Fills `out` with levels, before they are clamped and scaled. */
INLINE void drawn_levels(const float *x, int n, const Grid *grid, int floating, const Key *key,
                         uint32_t index, float *out)
{
    const Grid g = *grid;
    if (!floating && !key)
        for (int i = 0; i < n; i++)
            out[i] = rintf(x[i] / g.scale);
    else if (!floating)
        for (int i = 0; i < n; i++)
            out[i] = floorf(x[i] / g.scale + noise_at(index + (uint32_t)i, *key));
    else if (!key)
        for (int i = 0; i < n; i++) {
            const float y = within(x[i] / g.scale, g.lowest, g.highest), gap = floating_gap(y, &g);
            out[i] = rintf(y / gap) * gap;
        }
    else
        for (int i = 0; i < n; i++) {
            const float y = within(x[i] / g.scale, g.below, g.above), gap = floating_gap(y, &g);
            const float place = y / gap, under = floorf(place);
            const float noise = noise_at(index + (uint32_t)i, *key);
            out[i] = (under + floorf(place - under + noise)) * gap;
        }
}

/* Marks where values are clipped, whose levels are not clamped yet; returns how many are. */
INLINE int clipped_values(const float *x, const float *levels, int n, const Grid *grid,
                          int stochastic, uint8_t *clipped)
{
    const float *at = stochastic ? levels : x;
    const float lo = stochastic ? grid->lowest : grid->lo;
    const float hi = stochastic ? grid->highest : grid->hi;
    int found = 0;
    for (int i = 0; i < n; i++) {
        const int beyond = (at[i] < lo) | (at[i] > hi);
        clipped[i] = (uint8_t)beyond;
        found += beyond;
    }
    return found;
}

INLINE void finished(const float *levels, int n, const Grid *grid, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = within(levels[i], grid->lowest, grid->highest) * grid->scale;
}

/* The same, but infinities stay; `out` may be the memory of `x`. */
INLINE void finished_beside_infinities(const float *x, const float *levels, int n,
                                       const Grid *grid, float *out)
{
    for (int i = 0; i < n; i++) {
        const float value = within(levels[i], grid->lowest, grid->highest) * grid->scale;
        out[i] = isinf(x[i]) ? x[i] : value;
    }
}

/* --- values of 16 bits --- */

INLINE void narrowed_bfloat16(const float *wide, Py_ssize_t n, uint16_t *values)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, wide + i, sizeof bits);
        const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1)) >> 16;
        values[i] = (uint16_t)((bits & INT32_MAX) > 0x7F800000u ? 0x7FC0u : rounded);
    }
}

INLINE void narrowed_float16(const float *wide, Py_ssize_t n, uint16_t *values)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, wide + i, sizeof bits);
        const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & INT32_MAX;
        /* Of a sum from 0.5 on, the last digit is that of float16's subnormals. */
        float sum;
        memcpy(&sum, &magnitude, sizeof sum);
        sum += 0.5f;
        uint32_t subnormal;
        memcpy(&subnormal, &sum, sizeof subnormal);
        const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1)) >> 13;
        const uint32_t large = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
        const uint32_t half = magnitude < 0x38800000u ? subnormal - 0x3F000000u : normal;
        values[i] = (uint16_t)(sign | (magnitude < 0x47800000u ? half : large));
    }
}

/* --- whole arrays --- */

/* What is to be done.

format: 'f', 'e' or 'H', see `reader_of`.
key: of stochastic rounding; NULL: to nearest.
out: may be the memory of `values`.
clipped: filled with where values are clipped, if any are; NULL: that is not asked for.
sums: of the values; NULL: they are not asked for.
finite: without sums: the values are known to be finite.
*/
typedef struct {
    char format;
    const void *values;
    Py_ssize_t size;
    const Grid *grid;
    const Key *key;
    void *out;
    uint8_t *clipped;
    Sums *sums;
    int finite;
} Job;

typedef int64_t (*Quantizing)(Job);

/* Returns how many values are clipped. */
#define QUANTIZING(MACHINE, TARGET, WIDTH)                                                         \
    TARGET static int64_t quantizing_##MACHINE(Job job)                                            \
    {                                                                                              \
        const int floating = job.grid->relative_gap != 0, alone = job.format == 'f';               \
        float wide[BLOCK], levels[BLOCK];                                                          \
        int64_t found = 0;                                                                         \
        Py_ssize_t marked = 0; /* so many places of the mask are filled */                         \
        for (Py_ssize_t start = 0; start < job.size; start += BLOCK) {                             \
            const int n = job.size - start < BLOCK ? (int)(job.size - start) : BLOCK;              \
            const float *x = alone ? (const float *)job.values + start : wide;                     \
            if (job.format == 'H')                                                                 \
                widened_bfloat16((const uint16_t *)job.values + start, n, wide);                   \
            else if (job.format == 'e')                                                            \
                widened_float16((const uint16_t *)job.values + start, n, wide);                    \
            int may_clip = job.clipped != NULL, has_infinities = !job.sums && !job.finite;         \
            if (job.sums) {                                                                        \
                Sums block = NOTHING;                                                              \
                floats##WIDTH(x, n, &block);                                                       \
                add_block(&block, job.sums);                                                       \
                has_infinities = block.ninf > 0;                                                   \
                may_clip &=                                                                        \
                    block.lo < job.grid->lo || block.hi > job.grid->hi || has_infinities;          \
            }                                                                                      \
            Key key = {0, 0};                                                                      \
            if (job.key)                                                                           \
                key = key_of_block(*job.key, start);                                               \
            if (floating)                                                                          \
                drawn_levels(x, n, job.grid, 1, job.key ? &key : NULL, (uint32_t)start, levels);   \
            else                                                                                   \
                drawn_levels(x, n, job.grid, 0, job.key ? &key : NULL, (uint32_t)start, levels);   \
            if (may_clip) {                                                                        \
                memset(job.clipped + marked, 0, (size_t)(start - marked));                         \
                marked = start + n;                                                                \
                found += clipped_values(x, levels, n, job.grid, job.key != NULL,                   \
                                        job.clipped + start);                                      \
            }                                                                                      \
            float *out = alone ? (float *)job.out + start : levels;                                \
            if (has_infinities)                                                                    \
                finished_beside_infinities(x, levels, n, job.grid, out);                           \
            else if (alone)                                                                        \
                finished(levels, n, job.grid, out);                                                \
            else                                                                                   \
                finished(levels, n, job.grid, levels);                                             \
            if (job.format == 'H')                                                                 \
                narrowed_bfloat16(levels, n, (uint16_t *)job.out + start);                         \
            else if (job.format == 'e')                                                            \
                narrowed_float16(levels, n, (uint16_t *)job.out + start);                          \
        }                                                                                          \
        if (found)                                                                                 \
            memset(job.clipped + marked, 0, (size_t)(job.size - marked));                          \
        return found;                                                                              \
    }                                                                                              \
    TARGET static void noise_##MACHINE(Key of_array, int64_t first, Py_ssize_t size, float *out)   \
    {                                                                                              \
        for (Py_ssize_t start = 0, n; start < size; start += n) {                                  \
            const uint32_t index = (uint32_t)(first + start);                                      \
            const Key key = key_of_block(of_array, first + start);                                 \
            n = size - start < BLOCK ? size - start : BLOCK;                                       \
            n = n < INT64_C(0x100000000) - index ? n : INT64_C(0x100000000) - index;               \
            for (int i = 0; i < (int)n; i++)                                                       \
                out[start + i] = noise_at(index + (uint32_t)i, key);                               \
        }                                                                                          \
    }

#if defined(__x86_64__)
QUANTIZING(with_avx2, AVX2, 4)
QUANTIZING(with_avx512, AVX512, 8)
#else
#define quantizing_with_avx2 quantizing_any_machine
#define quantizing_with_avx512 quantizing_any_machine
#define noise_with_avx2 noise_any_machine
#define noise_with_avx512 noise_any_machine
#endif
QUANTIZING(any_machine, , 2)

static const Quantizing quantizers[] = {quantizing_any_machine, quantizing_with_avx2,
                                        quantizing_with_avx512};

typedef void (*Noise)(Key, int64_t, Py_ssize_t, float *);

static const Noise noises[] = {noise_any_machine, noise_with_avx2, noise_with_avx512};
