/* Extremes, counts and sums of arrays. hqtool/kernels/plain.py is the same in numpy, the oracle.

A block of values stays in the cache while three loops read it. Extremes and counts are made of
integers: the bits of a float, ordered as the floats are, which compilers vectorise well. Sums are
made in float64 in a fixed number of lanes, whatever the width of the machine's vectors, and never
contracted to fused multiplications: the same bits everywhere. A block with NaNs or infinities is
read again, value by value.
*/
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16 /* float64s that a sum is made in */
#define BLOCK 2048 /* a multiple of LANES */
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    double lo, hi, smallest, total, squares;
    int64_t size, nzero, nnan, ninf;
} Sums;

static const Sums NOTHING = {INFINITY, -INFINITY, INFINITY, 0.0, 0.0, 0, 0, 0, 0};

INLINE double lanes_added(const double *lanes)
{
    double sum[LANES];
    memcpy(sum, lanes, sizeof sum);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            sum[i] += sum[i + half];
    return sum[0];
}

/* NAME(values, n, sums) adds n <= BLOCK values to the sums.

Read as unsigned integers, the bits of floats rise from +0 to the largest, and then from -0 to the
most negative; read as signed ones, the negative ones come first, again from -0 on. So the least and
most of both orders are the extremes, and the values of both signs that are nearest to zero.

FLOAT of BITS bits; sums are made WIDTH float64s at a time.
*/
#define READER(NAME, FLOAT, BITS, INFINITE, WIDTH)                                                 \
    typedef FLOAT NAME##_narrow __attribute__((vector_size(WIDTH * sizeof(FLOAT))));               \
    typedef double NAME##_wide __attribute__((vector_size(WIDTH * sizeof(double))));               \
    INLINE double NAME##_float(uint##BITS##_t bits)                                                \
    {                                                                                              \
        FLOAT value;                                                                               \
        memcpy(&value, &bits, sizeof value);                                                       \
        return value;                                                                              \
    }                                                                                              \
    INLINE uint##BITS##_t NAME##_bits(const FLOAT *place)                                          \
    {                                                                                              \
        uint##BITS##_t bits;                                                                       \
        memcpy(&bits, place, sizeof bits);                                                         \
        return bits;                                                                               \
    }                                                                                              \
    INLINE void NAME##_beside_nonfinite(const FLOAT *values, Py_ssize_t n, Sums *sums)             \
    {                                                                                              \
        for (Py_ssize_t i = 0; i < n; i++) {                                                       \
            const uint##BITS##_t magnitude = NAME##_bits(values + i) & INT##BITS##_MAX;            \
            const double x = values[i];                                                            \
            if (magnitude >= INFINITE) {                                                           \
                *(magnitude == INFINITE ? &sums->ninf : &sums->nnan) += 1;                         \
                continue;                                                                          \
            }                                                                                      \
            sums->size++;                                                                          \
            sums->total += x;                                                                      \
            sums->squares += x * x;                                                                \
            sums->lo = x < sums->lo ? x : sums->lo;                                                \
            sums->hi = x > sums->hi ? x : sums->hi;                                                \
            if (!magnitude)                                                                        \
                sums->nzero++;                                                                     \
            else                                                                                   \
                sums->smallest = fabs(x) < sums->smallest ? fabs(x) : sums->smallest;              \
        }                                                                                          \
    }                                                                                              \
    INLINE double NAME##_smallest_beside_zeros(const FLOAT *values, Py_ssize_t n, int64_t *nzero)  \
    {                                                                                              \
        uint##BITS##_t smallest = UINT##BITS##_MAX, zeros = 0;                                     \
        for (Py_ssize_t i = 0; i < n; i++) {                                                       \
            /* A zero becomes the largest. */                                                      \
            const uint##BITS##_t below = (NAME##_bits(values + i) & INT##BITS##_MAX) - 1;          \
            smallest = below < smallest ? below : smallest;                                        \
            zeros += below == UINT##BITS##_MAX;                                                    \
        }                                                                                          \
        *nzero += zeros;                                                                           \
        return smallest == UINT##BITS##_MAX ? INFINITY : NAME##_float(smallest + 1);               \
    }                                                                                              \
    INLINE void NAME##_add_sums(const FLOAT *values, Py_ssize_t n, Sums *sums)                     \
    {                                                                                              \
        double totals[LANES], squares[LANES];                                                      \
        NAME##_wide total[LANES / WIDTH] = {{0}}, square[LANES / WIDTH] = {{0}};                   \
        const Py_ssize_t whole = n - n % LANES;                                                    \
        for (Py_ssize_t i = 0; i < whole; i += LANES)                                              \
            for (int group = 0; group < LANES / WIDTH; group++) {                                  \
                NAME##_narrow some;                                                                \
                memcpy(&some, values + i + group * WIDTH, sizeof some);                            \
                const NAME##_wide x = __builtin_convertvector(some, NAME##_wide);                  \
                total[group] += x;                                                                 \
                square[group] += x * x;                                                            \
            }                                                                                      \
        memcpy(totals, total, sizeof totals);                                                      \
        memcpy(squares, square, sizeof squares);                                                   \
        for (Py_ssize_t i = whole; i < n; i++) {                                                   \
            const double x = values[i];                                                            \
            totals[i - whole] += x;                                                                \
            squares[i - whole] += x * x;                                                           \
        }                                                                                          \
        sums->total += lanes_added(totals);                                                        \
        sums->squares += lanes_added(squares);                                                     \
    }                                                                                              \
    INLINE void NAME(const FLOAT *values, Py_ssize_t n, Sums *sums)                                \
    {                                                                                              \
        int##BITS##_t least = INT##BITS##_MAX, most = INT##BITS##_MIN;                             \
        uint##BITS##_t lowest = UINT##BITS##_MAX, highest = 0;                                     \
        for (Py_ssize_t i = 0; i < n; i++) {                                                       \
            const uint##BITS##_t bits = NAME##_bits(values + i);                                   \
            const int##BITS##_t number = (int##BITS##_t)bits;                                      \
            least = number < least ? number : least;                                               \
            most = number > most ? number : most;                                                  \
            lowest = bits < lowest ? bits : lowest;                                                \
            highest = bits > highest ? bits : highest;                                             \
        }                                                                                          \
        const uint##BITS##_t minus = (uint##BITS##_t)INT##BITS##_MIN;                              \
        if (most >= (int##BITS##_t)INFINITE || highest >= (minus | INFINITE)) {                    \
            NAME##_beside_nonfinite(values, n, sums);                                              \
            return;                                                                                \
        }                                                                                          \
        const int has_zeros = lowest == 0 || least == INT##BITS##_MIN;                             \
        const double up = NAME##_float(lowest), down = NAME##_float((uint##BITS##_t)least);        \
        const double lo = highest >= minus ? NAME##_float(highest) : up;                           \
        const double hi = most >= 0 ? NAME##_float((uint##BITS##_t)most) : down;                   \
        const double smallest = has_zeros                                                          \
                                    ? NAME##_smallest_beside_zeros(values, n, &sums->nzero)        \
                                    : (fabs(up) < fabs(down) ? fabs(up) : fabs(down));             \
        sums->lo = lo < sums->lo ? lo : sums->lo;                                                  \
        sums->hi = hi > sums->hi ? hi : sums->hi;                                                  \
        sums->smallest = smallest < sums->smallest ? smallest : sums->smallest;                    \
        sums->size += n;                                                                           \
        NAME##_add_sums(values, n, sums);                                                          \
    }

READER(floats2, float, 32, 0x7F800000u, 2)
READER(floats4, float, 32, 0x7F800000u, 4)
READER(floats8, float, 32, 0x7F800000u, 8)
READER(doubles2, double, 64, 0x7FF0000000000000ull, 2)
READER(doubles4, double, 64, 0x7FF0000000000000ull, 4)
READER(doubles8, double, 64, 0x7FF0000000000000ull, 8)

/* Both fill `wide` with the floats that n <= BLOCK values of 16 bits stand for. */
INLINE void widened_bfloat16(const uint16_t *values, Py_ssize_t n, float *wide)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)values[i] << 16;
        memcpy(wide + i, &bits, sizeof bits);
    }
}

INLINE void widened_float16(const uint16_t *values, Py_ssize_t n, float *wide)
{
    for (Py_ssize_t i = 0; i < n; i++) {
        const uint32_t half = values[i], sign = (half & 0x8000u) << 16;
        const uint32_t exponent = half & 0x7C00u, digits = (half & 0x7FFFu) << 13;
        uint32_t bits = digits + (exponent == 0x7C00u ? 0x70000000u : 0x38000000u);
        /* A subnormal: without the leading one of 2^-14 * 1.digits. Subnormals of float32, which
           some threads take for zero, do not occur. */
        const uint32_t raised = bits + 0x00800000u, one = 0x38800000u;
        float value, unit;
        memcpy(&value, &raised, sizeof value);
        memcpy(&unit, &one, sizeof unit);
        value -= unit;
        uint32_t subnormal;
        memcpy(&subnormal, &value, sizeof subnormal);
        bits = (exponent ? bits : subnormal) | sign;
        memcpy(wide + i, &bits, sizeof bits);
    }
}

typedef void (*SumsOf)(const void *, Py_ssize_t, Sums *);

INLINE void add_block(const Sums *block, Sums *sums)
{
    sums->lo = block->lo < sums->lo ? block->lo : sums->lo;
    sums->hi = block->hi > sums->hi ? block->hi : sums->hi;
    sums->smallest = block->smallest < sums->smallest ? block->smallest : sums->smallest;
    sums->total += block->total;
    sums->squares += block->squares;
    sums->size += block->size;
    sums->nzero += block->nzero;
    sums->nnan += block->nnan;
    sums->ninf += block->ninf;
}

#define EACH_BLOCK(NAME, TYPE, ADD_BLOCK)                                                          \
    static void NAME(const void *buffer, Py_ssize_t size, Sums *sums)                              \
    {                                                                                              \
        const TYPE *values = buffer;                                                               \
        for (Py_ssize_t start = 0; start < size; start += BLOCK) {                                 \
            const Py_ssize_t n = size - start < BLOCK ? size - start : BLOCK;                      \
            Sums block = NOTHING;                                                                  \
            ADD_BLOCK                                                                              \
            add_block(&block, sums);                                                               \
        }                                                                                          \
    }

/* One function for each type, made for the machines of TARGET. */
#define SUMS(MACHINE, TARGET, WIDTH)                                                               \
    TARGET EACH_BLOCK(float32_##MACHINE, float, { floats##WIDTH(values + start, n, &block); })     \
    TARGET EACH_BLOCK(float64_##MACHINE, double, { doubles##WIDTH(values + start, n, &block); })   \
    TARGET EACH_BLOCK(bfloat16_##MACHINE, uint16_t, {                                              \
        float wide[BLOCK];                                                                         \
        widened_bfloat16(values + start, n, wide);                                                 \
        floats##WIDTH(wide, n, &block);                                                            \
    })                                                                                             \
    TARGET EACH_BLOCK(float16_##MACHINE, uint16_t, {                                               \
        float wide[BLOCK];                                                                         \
        widened_float16(values + start, n, wide);                                                  \
        floats##WIDTH(wide, n, &block);                                                            \
    })                                                                                             \
    static const SumsOf MACHINE[] = {float32_##MACHINE, float64_##MACHINE, float16_##MACHINE,      \
                                     bfloat16_##MACHINE};

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq")))
SUMS(with_avx2, AVX2, 4)
SUMS(with_avx512, AVX512, 8)
#else
#define with_avx2 any_machine
#define with_avx512 any_machine
#endif
SUMS(any_machine, , 2)

static const SumsOf *const readers[] = {any_machine, with_avx2, with_avx512};

/* What this machine can do: 0 anything, 1 AVX2, 2 AVX-512. */
static int machine(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return 2;
    if (__builtin_cpu_supports("avx2"))
        return 1;
#endif
    return 0;
}

/* What reads values of that letter of the struct module; of 'H', the bits of bfloat16. */
static SumsOf reader_of(const char *format)
{
    static const char LETTERS[] = "fdeH";
    const char *letter = strchr(LETTERS, format[0]);
    return format[0] && !format[1] && letter ? readers[machine()][letter - LETTERS] : NULL;
}
