/* Fused loops over arrays. hqtool/kernels/plain.py is the same in numpy, and the oracle.

Statistics: a block of values stays in the cache while three loops read it. Extremes and counts are made of
integers: the bits of a float, ordered as the floats are, which compilers vectorise well. Sums are
made in float64 in a fixed number of lanes, whatever the width of the machine's vectors, and never
contracted to fused multiplications: the same bits everywhere. A block with NaNs or infinities is
read again, value by value.
*/
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define VERSION 2
#define LANES 16 /* float64s that a sum is made in */
#define BLOCK 2048 /* a multiple of LANES */
#define WORTH_A_THREAD 8192 /* fewer values are read before another thread could take the GIL */

#if !defined(__GNUC__)
#error "The compiled form is written for GCC and Clang; without it the plain form does the work."
#endif
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

#define EACH_BLOCK(NAME, TYPE, ADD_BLOCK)                                                          \
    static void NAME(const void *buffer, Py_ssize_t size, Sums *sums)                              \
    {                                                                                              \
        const TYPE *values = buffer;                                                               \
        for (Py_ssize_t start = 0; start < size; start += BLOCK) {                                 \
            const Py_ssize_t n = size - start < BLOCK ? size - start : BLOCK;                      \
            ADD_BLOCK                                                                              \
        }                                                                                          \
    }

/* One function for each type, made for the machines of TARGET. */
#define SUMS(MACHINE, TARGET, WIDTH)                                                               \
    TARGET EACH_BLOCK(float32_##MACHINE, float, { floats##WIDTH(values + start, n, sums); })       \
    TARGET EACH_BLOCK(float64_##MACHINE, double, { doubles##WIDTH(values + start, n, sums); })     \
    TARGET EACH_BLOCK(bfloat16_##MACHINE, uint16_t, {                                              \
        float wide[BLOCK];                                                                         \
        widened_bfloat16(values + start, n, wide);                                                 \
        floats##WIDTH(wide, n, sums);                                                              \
    })                                                                                             \
    TARGET EACH_BLOCK(float16_##MACHINE, uint16_t, {                                               \
        float wide[BLOCK];                                                                         \
        widened_float16(values + start, n, wide);                                                  \
        floats##WIDTH(wide, n, sums);                                                              \
    })                                                                                             \
    static const SumsOf MACHINE[] = {float32_##MACHINE, float64_##MACHINE, float16_##MACHINE,      \
                                     bfloat16_##MACHINE};

SUMS(any_machine, , 2)

#if defined(__x86_64__)
SUMS(with_avx2, __attribute__((target("avx2"))), 4)
SUMS(with_avx512, __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq"))), 8)
#endif

/* The readers of float32, float64, float16 and bfloat16 that suit this machine. */
static const SumsOf *readers(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return with_avx512;
    if (__builtin_cpu_supports("avx2"))
        return with_avx2;
#endif
    return any_machine;
}

/* What reads values of that letter of the struct module; of 'H', the bits of bfloat16. */
static SumsOf reader_of(const char *format)
{
    static const char LETTERS[] = "fdeH";
    const char *letter = strchr(LETTERS, format[0]);
    return format[0] && !format[1] && letter ? readers()[letter - LETTERS] : NULL;
}

static PyObject *array_sums(PyObject *self, PyObject *array)
{
    Py_buffer view;
    (void)self;
    if (PyObject_GetBuffer(array, &view, PyBUF_ANY_CONTIGUOUS | PyBUF_FORMAT) < 0)
        return NULL;
    const SumsOf read = reader_of(view.format ? view.format : "B");
    if (!read) {
        PyErr_Format(PyExc_TypeError, "no sums of values of the format '%s'", view.format);
        PyBuffer_Release(&view);
        return NULL;
    }
    Sums sums = NOTHING;
    const Py_ssize_t size = view.len / view.itemsize;
    if (size < WORTH_A_THREAD) {
        read(view.buf, size, &sums);
    } else {
        Py_BEGIN_ALLOW_THREADS
        read(view.buf, size, &sums);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&view);
    /* + 0.0: a zero without its sign. */
    return Py_BuildValue("(dddLddLLL)", sums.lo + 0.0, sums.hi + 0.0, sums.smallest,
                         (long long)sums.size, sums.total, sums.squares, (long long)sums.nzero,
                         (long long)sums.nnan, (long long)sums.ninf);
}

/* --- quantizing to nearest, uniform levels --------------------------------------------------- */

/* What `quantized_nearest` of plain.py takes, as float32. */
typedef struct {
    float scale, first, last, lo, hi;
} Levels;

/* Fills `out`, and `clipped` unless it is NULL; returns how many values are clipped. */
#define NEAREST(MACHINE, TARGET)                                                                   \
    TARGET static int64_t MACHINE(const float *values, Py_ssize_t size, Levels to, float *out,     \
                                  uint8_t *clipped)                                                \
    {                                                                                              \
        for (Py_ssize_t i = 0; i < size; i++) {                                                    \
            float level = rintf(values[i] / to.scale);                                             \
            level = level < to.first ? to.first : level;                                           \
            level = level > to.last ? to.last : level;                                             \
            out[i] = level * to.scale;                                                             \
        }                                                                                          \
        if (!clipped)                                                                              \
            return 0;                                                                              \
        int64_t found = 0;                                                                         \
        for (Py_ssize_t i = 0; i < size; i++) {                                                    \
            clipped[i] = (values[i] < to.lo) | (values[i] > to.hi);                                \
            found += clipped[i];                                                                   \
        }                                                                                          \
        return found;                                                                              \
    }

typedef int64_t (*Nearest)(const float *, Py_ssize_t, Levels, float *, uint8_t *);

NEAREST(nearest_anywhere, )

#if defined(__x86_64__)
NEAREST(nearest_with_avx2, __attribute__((target("avx2"))))
NEAREST(nearest_with_avx512, __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq"))))
#endif

static Nearest nearest(void)
{
#if defined(__x86_64__)
    if (readers() == with_avx512)
        return nearest_with_avx512;
    if (readers() == with_avx2)
        return nearest_with_avx2;
#endif
    return nearest_anywhere;
}

static PyObject *quantized_nearest(PyObject *self, PyObject *args)
{
    Py_buffer values, out, clipped = {0};
    PyObject *source, *target, *mask;
    double scale, first, last, lo, hi;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOddddd", &source, &target, &mask, &scale, &first, &last, &lo,
                          &hi))
        return NULL;
    if (PyObject_GetBuffer(source, &values, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0)
        return NULL;
    if (PyObject_GetBuffer(target, &out, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&values);
        return NULL;
    }
    if (mask != Py_None &&
        PyObject_GetBuffer(mask, &clipped, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&values);
        PyBuffer_Release(&out);
        return NULL;
    }
    int64_t found = -1;
    const Py_ssize_t size = values.len / (Py_ssize_t)sizeof(float);
    const Levels to = {(float)scale, (float)first, (float)last, (float)lo, (float)hi};
    if (!strcmp(values.format, "f") && !strcmp(out.format, "f") && out.len == values.len &&
        (mask == Py_None || clipped.len == size)) {
        Py_BEGIN_ALLOW_THREADS
        found = nearest()(values.buf, size, to, out.buf, clipped.buf);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_TypeError, "values and results are float32, and as many");
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&out);
    if (mask != Py_None)
        PyBuffer_Release(&clipped);
    return found < 0 ? NULL : PyLong_FromLongLong(found);
}

static PyMethodDef methods[] = {
    {"array_sums", array_sums, METH_O,
     "lo, hi, smallest, size, total, squares, nzero, nnan, ninf of a contiguous array's values."},
    {"quantized_nearest", quantized_nearest, METH_VARARGS,
     "(values, out, clipped or None, scale, first, last, lo, hi): how many values are clipped."},
    {NULL, NULL, 0, NULL},
};

static int filled(PyObject *module) { return PyModule_AddIntConstant(module, "VERSION", VERSION); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, filled}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&definition); }
