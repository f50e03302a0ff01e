/* The functions of maps.py without a step of Python for each entry; it says what they do.
 *
 * Hazard: a map may change while it is gone through only if other Python code runs meanwhile. None does: what is compared
 * is of builtin classes, and while memory is taken the garbage collector waits.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "same.h"

static int
add_place(PyObject *found, Py_ssize_t at, PyObject *name)
{
    PyObject *place = PyLong_FromSsize_t(at);
    int added = place == NULL ? -1 : PyDict_SetItem(found, place, name);
    Py_XDECREF(place);
    return added;
}

static PyObject *
changed(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *old, *new, *name, *was, *key, *now;
    Py_ssize_t at = 0, new_at = 0, place = 0;
    if (!PyArg_ParseTuple(args, "OO", &old, &new))
        return NULL;
    if (!PyDict_CheckExact(old) || !PyDict_CheckExact(new))
        Py_RETURN_NONE;
    PyObject *found = PyDict_New();
    for (; found != NULL && PyDict_Next(old, &at, &name, &was); place++) {
        if (Py_TYPE(name) != &PyUnicode_Type || !PyDict_Next(new, &new_at, &key, &now) || !is_same(key, name)) {
            Py_DECREF(found);
            Py_RETURN_NONE;
        }
        if (!is_same(now, was) && add_place(found, place, name) < 0)
            Py_CLEAR(found);
    }
    return found;
}

static int
is_scalar(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    return value == Py_None || type == &PyLong_Type || type == &PyUnicode_Type || type == &PyFloat_Type
           || type == &PyBool_Type;
}

static PyObject *copy_of(PyObject *map, PyObject *base);

/* In `copy`, in place of what the caller may change: what `base` has there if that is the same, or a copy. */
static int
own(PyObject *copy, PyObject *name, PyObject *value, PyObject *base)
{
    PyObject *known = PyDict_CheckExact(base) ? PyDict_GetItemWithError(base, name) : NULL;
    int shared = known != NULL && PyDict_CheckExact(known) && is_same(value, known);
    PyObject *one = shared ? Py_NewRef(known) : PyErr_Occurred() ? NULL : copy_of(value, Py_None);
    int owned = one == NULL ? -1 : one == Py_None ? 0 : PyDict_SetItem(copy, name, one) < 0 ? -1 : 1;
    Py_XDECREF(one);
    return owned;
}

/* None: not plain. */
static PyObject *
copy_of(PyObject *map, PyObject *base)
{
    PyObject *name, *value, *copy = PyDict_CheckExact(map) ? PyDict_Copy(map) : Py_NewRef(Py_None);
    Py_ssize_t at = 0;
    int plain = copy == NULL ? -1 : copy != Py_None;
    while (plain == 1 && PyDict_Next(map, &at, &name, &value)) {
        if (Py_TYPE(name) != &PyUnicode_Type)
            plain = 0;
        else if (base == Py_None)
            plain = is_scalar(value);
        else
            plain = own(copy, name, value, base);
    }
    if (plain == 1 || copy == Py_None)
        return copy;
    Py_XDECREF(copy);
    return plain < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
copied(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *map, *base = Py_None;
    if (!PyArg_ParseTuple(args, "O|O", &map, &base))
        return NULL;
    int collects = PyGC_Disable();
    PyObject *copy = copy_of(map, base);
    if (collects)
        PyGC_Enable();
    return copy;
}

static PyMethodDef functions[] = {
    {"changed", changed, METH_VARARGS, NULL},
    {"copied", copied, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_maps", .m_size = -1, .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__maps(void)
{
    return PyModule_Create(&definition);
}
