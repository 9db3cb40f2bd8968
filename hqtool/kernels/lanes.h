/* Moments of quantized values, each under the levels of its own lane, in one pass.

The operations are those of hqtool.core.moments.grouped, in float64: the same levels. Sums are made
in a fixed number of lanes of a vector, as those of sums.h.
*/
#include "quantize.h"

#define TILE 256 /* values whose arrays stay in the cache; a multiple of LANES */
#define AXES 3

/* The gaps between levels, in units of the scale; LaneGaps in lanes.py says what they are. */
typedef struct {
    double relative, least_power, greatest_power, at_zero, low, high, beyond;
} Gaps;

/* One number for each value of an array; axes of stride 0 share theirs. */
typedef struct {
    const char *at;
    Py_ssize_t strides[AXES];
} Column;

typedef struct {
    const void *values; /* contiguous */
    char format;        /* 'f', 'd' or 'e' */
    Py_ssize_t shape[AXES];
    Column scale, lowest, highest;
    Gaps gaps;
    int expected;
} LaneJob;

typedef struct {
    double nonzero, xx, qq, xq, errors, saturated, underflowed;
} LaneSums;

typedef struct {
    double x[TILE], nonzero[TILE], scale[TILE], lowest[TILE], highest[TILE];
    double y[TILE]; /* x in units of the scale */
    double q[TILE], error[TILE], variance[TILE], saturated[TILE], underflowed[TILE];
} Tile;

INLINE double clamped(double y, double lowest, double highest)
{
    y = y < lowest ? lowest : y; /* NaN stays */
    return y > highest ? highest : y;
}

/* The power of two below |y|, clamped. */
INLINE double power_below(double y, const Gaps *gaps)
{
    uint64_t bits;
    double power;
    memcpy(&bits, &y, sizeof bits);
    bits &= UINT64_C(0x7FF0000000000000);
    memcpy(&power, &bits, sizeof power);
    return clamped(power, gaps->least_power, gaps->greatest_power);
}

/* In units of the scale; where that is 0, every value becomes 0. */
INLINE double unscaled(double x, double scale) { return x / (scale == 0 ? INFINITY : scale); }

INLINE void quantized_to_nearest(Tile *tile, int n, const Gaps *of_levels, int floating)
{
    const Gaps gaps = *of_levels;
    const double low = gaps.beyond * gaps.low, high = gaps.beyond * gaps.high;
    const double rounding = 1.5 * 0x1p52 * gaps.relative;
    for (int i = 0; i < n; i++) {
        const double x = tile->x[i], scale = tile->scale[i], y = unscaled(x, scale);
        const double lowest = tile->lowest[i], highest = tile->highest[i];
        /* Near 1.5 * 2^52 gaps, float64 rounds to whole gaps, ties to even. */
        const double beside = floating ? power_below(y, &gaps) * rounding : 0.0;
        const double level = floating ? y + beside - beside : rint(y);
        const double q = clamped(level, lowest, highest) * scale;
        const int dead = scale == 0, zero = x == 0;
        tile->q[i] = q;
        tile->error[i] = x - q;
        tile->saturated[i] =
            ((y < lowest - low) | (y > highest + high) | (dead & !zero)) ? 1.0 : 0.0;
        tile->underflowed[i] = ((q == 0) & !zero) ? 1.0 : 0.0;
    }
}

INLINE double at_least_0(double y) { return y > 0 ? y : 0; }

/* Loops of few outcomes each, which compilers vectorise. */
INLINE void quantized_in_expectation(Tile *tile, int n, const Gaps *of_levels, int floating)
{
    const Gaps gaps = *of_levels;
    const double per_low = 1.0 / gaps.low, per_high = 1.0 / gaps.high, per_first = 1.0 / gaps.at_zero;
    for (int i = 0; i < n; i++) {
        const double x = tile->x[i], scale = tile->scale[i], y = unscaled(x, scale);
        const double lowest = tile->lowest[i], highest = tile->highest[i];
        const double gap = floating ? power_below(y, &gaps) * gaps.relative : 1.0;
        const double size = fabs(y), above = size - floor(size / gap) * gap;
        const double variance = above * (gap - above) * (scale * scale);
        const double clipped = clamped(y, lowest, highest) * scale;
        const int beyond = (y < lowest) | (y > highest);
        const double q = beyond | (scale == 0) ? clipped : x;
        tile->y[i] = y;
        tile->q[i] = q;
        tile->error[i] = x - q;
        tile->variance[i] = beyond ? 0.0 : variance;
    }
    for (int i = 0; i < n; i++) {
        const double y = tile->y[i], lowest = tile->lowest[i], highest = tile->highest[i];
        const double under = at_least_0(lowest - y), over = at_least_0(y - highest);
        const double share = under * per_low + over * per_high;
        const double dead = tile->scale[i] == 0 ? tile->nonzero[i] : 0.0;
        tile->saturated[i] = share > 1.0 ? 1.0 : share + dead;
    }
    for (int i = 0; i < n; i++) {
        const double y = tile->y[i], lowest = tile->lowest[i], highest = tile->highest[i];
        const double lost = at_least_0(1.0 - fabs(y) * per_first);
        const int at_an_end = ((y < lowest) & (lowest == 0)) | ((y > highest) & (highest == 0));
        tile->underflowed[i] = tile->nonzero[i] * (at_an_end ? 1.0 : lost);
    }
}

INLINE void filled_column(double *out, const char *from, Py_ssize_t stride, int n)
{
    if (!stride) {
        const double same = *(const double *)from;
        for (int i = 0; i < n; i++)
            out[i] = same;
    } else if (stride == sizeof(double)) {
        memcpy(out, from, (size_t)n * sizeof(double));
    } else {
        for (int i = 0; i < n; i++)
            out[i] = *(const double *)(from + i * stride);
    }
}

INLINE void filled_values(double *out, const LaneJob *job, Py_ssize_t first, int n)
{
    if (job->format == 'd') {
        memcpy(out, (const double *)job->values + first, (size_t)n * sizeof(double));
        return;
    }
    float halves[TILE];
    const float *from = (const float *)job->values + first;
    if (job->format == 'e') {
        widened_float16((const uint16_t *)job->values + first, n, halves);
        from = halves;
    }
    for (int i = 0; i < n; i++)
        out[i] = from[i];
}

/* Fills the places start ... start + n of a tile with values from `first` on, that lie at i, j, k.
*/
INLINE void filled_tile(Tile *tile, int start, int n, const LaneJob *job, Py_ssize_t first,
                        Py_ssize_t i, Py_ssize_t j, Py_ssize_t k)
{
    const Column *columns[] = {&job->scale, &job->lowest, &job->highest};
    double *into[] = {tile->scale, tile->lowest, tile->highest};
    filled_values(tile->x + start, job, first, n);
    for (int which = 0; which < 3; which++) {
        const Py_ssize_t *strides = columns[which]->strides;
        const char *from = columns[which]->at + i * strides[0] + j * strides[1] + k * strides[2];
        filled_column(into[which] + start, from, strides[2], n);
    }
}

typedef void (*SumsOfLanes)(const LaneJob *, LaneSums *);

#define LANE_SUMS(MACHINE, TARGET, WIDTH)                                                          \
    typedef double MACHINE##_doubles __attribute__((vector_size(WIDTH * sizeof(double))));         \
    TARGET INLINE double dot_##MACHINE(const double *a, const double *b, int n)                    \
    {                                                                                              \
        double lanes[LANES];                                                                       \
        MACHINE##_doubles sums[LANES / WIDTH] = {{0}};                                             \
        const int whole = n - n % LANES;                                                           \
        for (int i = 0; i < whole; i += LANES)                                                     \
            for (int group = 0; group < LANES / WIDTH; group++) {                                  \
                MACHINE##_doubles x, y;                                                            \
                memcpy(&x, a + i + group * WIDTH, sizeof x);                                       \
                memcpy(&y, b + i + group * WIDTH, sizeof y);                                       \
                sums[group] += x * y;                                                              \
            }                                                                                      \
        memcpy(lanes, sums, sizeof lanes);                                                         \
        for (int i = whole; i < n; i++)                                                            \
            lanes[i - whole] += a[i] * b[i];                                                       \
        return lanes_added(lanes);                                                                 \
    }                                                                                              \
    TARGET INLINE void tile_added_##MACHINE(Tile *tile, int n, const LaneJob *job, LaneSums *sums) \
    {                                                                                              \
        static const double ONES[TILE] = {[0 ... TILE - 1] = 1.0};                                 \
        const int floating = job->gaps.relative != 0;                                              \
        for (int i = 0; i < n; i++)                                                                \
            tile->nonzero[i] = tile->x[i] == 0 ? 0.0 : 1.0;                                        \
        if (job->expected && floating)                                                             \
            quantized_in_expectation(tile, n, &job->gaps, 1);                                      \
        else if (job->expected)                                                                    \
            quantized_in_expectation(tile, n, &job->gaps, 0);                                      \
        else if (floating)                                                                         \
            quantized_to_nearest(tile, n, &job->gaps, 1);                                          \
        else                                                                                       \
            quantized_to_nearest(tile, n, &job->gaps, 0);                                          \
        const double variance = job->expected ? dot_##MACHINE(tile->variance, ONES, n) : 0.0;      \
        sums->nonzero += dot_##MACHINE(tile->nonzero, ONES, n);                                    \
        sums->xx += dot_##MACHINE(tile->x, tile->x, n);                                            \
        sums->qq += dot_##MACHINE(tile->q, tile->q, n) + variance;                                 \
        sums->xq += dot_##MACHINE(tile->x, tile->q, n);                                            \
        sums->errors += dot_##MACHINE(tile->error, tile->error, n) + variance;                     \
        sums->saturated += dot_##MACHINE(tile->saturated, ONES, n);                                \
        sums->underflowed += dot_##MACHINE(tile->underflowed, ONES, n);                            \
    }                                                                                              \
    TARGET static void lane_sums_##MACHINE(const LaneJob *job, LaneSums *sums)                     \
    {                                                                                              \
        Tile tile;                                                                                 \
        int used = 0;                                                                              \
        Py_ssize_t first = 0;                                                                      \
        for (Py_ssize_t i = 0; i < job->shape[0]; i++)                                             \
            for (Py_ssize_t j = 0; j < job->shape[1]; j++)                                         \
                for (Py_ssize_t k = 0; k < job->shape[2];) {                                       \
                    const Py_ssize_t left = job->shape[2] - k;                                     \
                    const int n = left < TILE - used ? (int)left : TILE - used;                    \
                    filled_tile(&tile, used, n, job, first, i, j, k);                              \
                    used += n, first += n, k += n;                                                 \
                    if (used == TILE) {                                                            \
                        tile_added_##MACHINE(&tile, used, job, sums);                              \
                        used = 0;                                                                  \
                    }                                                                              \
                }                                                                                  \
        tile_added_##MACHINE(&tile, used, job, sums);                                              \
    }

#if defined(__x86_64__)
LANE_SUMS(with_avx2, AVX2, 4)
LANE_SUMS(with_avx512, AVX512, 8)
#else
#define lane_sums_with_avx2 lane_sums_any_machine
#define lane_sums_with_avx512 lane_sums_any_machine
#endif
LANE_SUMS(any_machine, , 2)

static const SumsOfLanes sums_of_lanes[] = {lane_sums_any_machine, lane_sums_with_avx2,
                                            lane_sums_with_avx512};
