/* The compiled form of hqtool.kernels as a module of Python; sums.h,
quantize.h and lanes.h do the work. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#if !defined(__GNUC__)
#error "The compiled form is written for GCC and Clang; without it the plain form does the work."
#endif
#include "lanes.h"

#define VERSION 5
#define WORTH_A_THREAD 8192 /* fewer values are read before another thread could take the GIL */

static PyObject *as_tuple(const Sums *sums)
{
    /* + 0.0: a zero without its sign. */
    return Py_BuildValue("(dddLddLLL)", sums->lo + 0.0, sums->hi + 0.0, sums->smallest,
                         (long long)sums->size, sums->total, sums->squares,
                         (long long)sums->nzero, (long long)sums->nnan, (long long)sums->ninf);
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
    return as_tuple(&sums);
}

static int64_t done(Job job)
{
    int64_t found;
    if (job.size < WORTH_A_THREAD)
        return quantizers[machine()](job);
    Py_BEGIN_ALLOW_THREADS
    found = quantizers[machine()](job);
    Py_END_ALLOW_THREADS
    return found;
}

/* Three buffers, of which those taken are given back. */
typedef struct {
    Py_buffer values, out, clipped;
} Buffers;

static void release(Buffers *all)
{
    PyBuffer_Release(&all->values);
    PyBuffer_Release(&all->out);
    PyBuffer_Release(&all->clipped);
}

/* Takes them, if they go together; else returns 0 and says why not. */
static int taken(PyObject *values, PyObject *out, PyObject *clipped, Buffers *all)
{
    const int reads = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT, writes = reads | PyBUF_WRITABLE;
    if (PyObject_GetBuffer(values, &all->values, reads) < 0 ||
        PyObject_GetBuffer(out, &all->out, writes) < 0 ||
        (clipped != Py_None && PyObject_GetBuffer(clipped, &all->clipped, writes) < 0))
        return 0;
    const char *format = all->values.format;
    if (format[0] && strchr("feH", format[0]) && !format[1] && !strcmp(format, all->out.format) &&
        all->out.len == all->values.len &&
        (clipped == Py_None || all->clipped.len == all->values.len / all->values.itemsize))
        return 1;
    PyErr_SetString(PyExc_TypeError, "values and results are of one type of float, and as many");
    return 0;
}

static PyObject *quantized(PyObject *self, PyObject *args)
{
    PyObject *values, *out, *clipped, *stochastic;
    Grid grid;
    Key key = {0, 0};
    int with_sums, finite;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOO(ffffffffff)Opp", &values, &out, &clipped, &grid.scale,
                          &grid.lowest, &grid.highest, &grid.lo, &grid.hi, &grid.relative_gap,
                          &grid.least_power, &grid.greatest_power, &grid.below, &grid.above,
                          &stochastic, &with_sums, &finite) ||
        (stochastic != Py_None && !PyArg_ParseTuple(stochastic, "II", &key.first, &key.second)))
        return NULL;
    Buffers all = {{0}, {0}, {0}};
    PyObject *result = NULL;
    if (taken(values, out, clipped, &all)) {
        Sums sums = NOTHING;
        const int64_t found =
            done((Job){all.values.format[0], all.values.buf, all.values.len / all.values.itemsize,
                       &grid, stochastic == Py_None ? NULL : &key, all.out.buf, all.clipped.buf,
                       with_sums ? &sums : NULL, finite});
        result = with_sums ? Py_BuildValue("(LN)", (long long)found, as_tuple(&sums))
                           : Py_BuildValue("(LO)", (long long)found, Py_None);
    }
    release(&all);
    return result;
}

static PyObject *uniform(PyObject *self, PyObject *args)
{
    PyObject *out;
    Py_buffer view;
    Key key;
    long long first;
    (void)self;
    if (!PyArg_ParseTuple(args, "O(II)L", &out, &key.first, &key.second, &first) ||
        PyObject_GetBuffer(out, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE) < 0)
        return NULL;
    const int fits = !strcmp(view.format, "f");
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        noises[machine()](key, first, view.len / view.itemsize, view.buf);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_SetString(PyExc_TypeError, "noise is float32");
    }
    PyBuffer_Release(&view);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

/* Numbers that broadcast to the shape of the values; returns 0 where they do not. */
static int column_of(const Py_buffer *view, const LaneJob *job, Column *column)
{
    const int missing = AXES - view->ndim;
    if (missing < 0 || strcmp(view->format, "d"))
        return 0;
    column->at = view->buf;
    for (int axis = 0; axis < AXES; axis++) {
        const Py_ssize_t size = axis < missing ? 1 : view->shape[axis - missing];
        if (size != 1 && size != job->shape[axis])
            return 0;
        column->strides[axis] = size == 1 ? 0 : view->strides[axis - missing];
    }
    return 1;
}

/* Fills in what the buffers of values, scales, lowest and highest levels tell. */
static int filled_job(const Py_buffer *views, LaneJob *job)
{
    const int ndim = views[0].ndim;
    const char *format = views[0].format;
    if (ndim > AXES || !format[0] || format[1] || !strchr("fde", format[0]))
        return 0;
    job->values = views[0].buf;
    job->format = format[0];
    for (int axis = 0; axis < AXES; axis++)
        job->shape[axis] = axis < AXES - ndim ? 1 : views[0].shape[axis - (AXES - ndim)];
    return column_of(views + 1, job, &job->scale) && column_of(views + 2, job, &job->lowest) &&
           column_of(views + 3, job, &job->highest);
}

static PyObject *lane_sums(PyObject *self, PyObject *args)
{
    PyObject *arrays[4];
    LaneJob job;
    Gaps *gaps = &job.gaps;
    Py_buffer views[4] = {{0}, {0}, {0}, {0}};
    LaneSums sums = {0};
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOO(ddddddd)p", arrays, arrays + 1, arrays + 2, arrays + 3,
                          &gaps->relative, &gaps->least_power, &gaps->greatest_power,
                          &gaps->at_zero, &gaps->low, &gaps->high, &gaps->beyond, &job.expected))
        return NULL;
    int fits = 1;
    for (int i = 0; i < 4 && fits; i++)
        fits = !PyObject_GetBuffer(arrays[i], views + i,
                                   PyBUF_FORMAT | (i ? PyBUF_STRIDES : PyBUF_C_CONTIGUOUS));
    if (fits && !filled_job(views, &job)) {
        PyErr_SetString(PyExc_TypeError, "values of up to three axes, and float64s that broadcast to them");
        fits = 0;
    }
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        sums_of_lanes[machine()](&job, &sums);
        Py_END_ALLOW_THREADS
    }
    for (int i = 0; i < 4; i++)
        PyBuffer_Release(views + i);
    return fits ? Py_BuildValue("(ddddddd)", sums.nonzero, sums.xx, sums.qq, sums.xq, sums.errors,
                                sums.saturated, sums.underflowed)
                : NULL;
}

static PyMethodDef methods[] = {
    {"array_sums", array_sums, METH_O,
     "lo, hi, smallest, size, total, squares, nzero, nnan, ninf of a contiguous array's values."},
    {"quantized", quantized, METH_VARARGS,
     "(values, out, clipped or None, grid, key or None, with sums): how many values are clipped, "
     "and their sums or None."},
    {"lane_sums", lane_sums, METH_VARARGS,
     "(values, scale, lowest, highest, gaps, expected): how many values are not 0, sums of x*x, "
     "q*q, x*q and errors, and how many values are saturated and underflowed."},
    {"uniform", uniform, METH_VARARGS, "(out, key, first): fills it with noise."},
    {NULL, NULL, 0, NULL},
};

static int filled(PyObject *module) { return PyModule_AddIntConstant(module, "VERSION", VERSION); }

static PyModuleDef_Slot slots[] = {{Py_mod_exec, filled}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&definition); }
