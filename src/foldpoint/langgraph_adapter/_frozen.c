/* The functions of frozen.py without a Python call for each message; it says what they do.
 *
 * Hazard: containers may change while they are read only if other Python code runs meanwhile. None does: values are of
 * builtin classes and no subclasses, nothing is freed but what was made here, and while memory is taken the garbage
 * collector waits. (It would run some ten times for a thousand messages, over objects that all stay.) So where a size
 * was looked at once, items are taken without looking again: that is a third of the time of going through messages.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "../codecs/same.h"

#define EXT_MESSAGE 5
#define DEEPEST 100 /* containers in containers; what is deeper is not plain, nor is what holds itself */

static PyObject *fields_name, *given_name, *extra_name, *private_name, *narrow_name;
static PyObject *no_items, *no_values; /* what is frozen holds these for all that is empty: most containers are */

/* Bytes that are taken, about. */
enum { DICT = 170, ENTRY = 45, LIST = 80, ITEM = 8, SCALAR = 40, SHORT = 64, WIDEST = 4 };

static PyObject *copied(PyObject *value, int depth, Py_ssize_t *taken);

static int
copy_items(PyObject *list, int depth, Py_ssize_t *taken)
{
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(list); at++) {
        PyObject *item = copied(PyList_GET_ITEM(list, at), depth, taken);
        if (item == NULL || PyList_SetItem(list, at, item) < 0)
            return -1;
    }
    return 0;
}

static int
copy_values(PyObject *dict, int depth, Py_ssize_t *taken)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (taken != NULL && PyDict_Next(dict, &at, &key, &value))
        if (Py_TYPE(key) != &PyUnicode_Type) {
            PyErr_SetString(PyExc_TypeError, "a key that is no str");
            return -1;
        }
    at = 0;
    while (PyDict_Next(dict, &at, &key, &value)) {
        if (taken == NULL && (value == Py_None || Py_TYPE(value) == &PyUnicode_Type))
            continue;
        value = copied(value, depth, taken);
        int failed = value == NULL || PyDict_SetItem(dict, key, value) < 0;
        Py_XDECREF(value);
        if (failed)
            return -1;
    }
    return 0;
}

/* -1: an error. */
static Py_ssize_t
scalar_size(PyObject *value)
{
    if (value == Py_None || Py_TYPE(value) == &PyBool_Type)
        return 0;
    if (Py_TYPE(value) == &PyBytes_Type)
        return SCALAR + PyBytes_Size(value);
    if (Py_TYPE(value) != &PyUnicode_Type)
        return SCALAR;
    Py_ssize_t length = PyUnicode_GetLength(value);
    if (length <= SHORT)
        return SCALAR + length;
    PyObject *narrow = PyObject_CallMethodObjArgs(value, narrow_name, NULL);
    Py_XDECREF(narrow);
    return narrow == NULL ? -1 : SCALAR + (narrow == Py_True ? length : WIDEST * length);
}

static int
is_scalar(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    return value == Py_None || type == &PyUnicode_Type || type == &PyBool_Type || type == &PyLong_Type
           || type == &PyFloat_Type || type == &PyBytes_Type;
}

/* A copy that shares nothing that can be changed; TypeError for a value that is not plain.
 *
 * taken: NULL for a copy of what is frozen; else the copy is to be frozen, and takes so many bytes more.
 */
static PyObject *
copied(PyObject *value, int depth, Py_ssize_t *taken)
{
    PyTypeObject *type = Py_TYPE(value);
    int is_dict = type == &PyDict_Type;
    if (is_scalar(value)) {
        Py_ssize_t size = taken == NULL ? 0 : scalar_size(value);
        if (size < 0)
            return NULL;
        if (taken != NULL)
            *taken += size;
        Py_INCREF(value);
        return value;
    }
    if ((!is_dict && type != &PyList_Type) || depth >= DEEPEST) {
        PyErr_SetString(PyExc_TypeError, "not plain, or too deep");
        return NULL;
    }
    Py_ssize_t size = is_dict ? PyDict_GET_SIZE(value) : PyList_GET_SIZE(value);
    if (size == 0) {
        if (taken == NULL)
            return is_dict ? PyDict_New() : PyList_New(0);
        PyObject *empty = is_dict ? no_values : no_items;
        Py_INCREF(empty);
        return empty;
    }
    if (taken != NULL)
        *taken += is_dict ? DICT + ENTRY * size : LIST + ITEM * size;
    PyObject *made = is_dict ? PyDict_Copy(value) : PyList_GetSlice(value, 0, size);
    if (made != NULL && (is_dict ? copy_values : copy_items)(made, depth + 1, taken) < 0)
        Py_CLEAR(made);
    return made;
}

/* (copy, bytes taken, first key, first value, ...): what copies are made of, and what is quickly compared. */
static PyObject *
frozen_of(PyObject *fields)
{
    if (!PyDict_CheckExact(fields)) {
        PyErr_SetString(PyExc_TypeError, "fields that are no dict");
        return NULL;
    }
    Py_ssize_t taken = 0, at = 0, next = 2;
    PyObject *copy = copied(fields, 0, &taken), *key, *value;
    PyObject *made = copy == NULL ? NULL : PyTuple_New(2 + 2 * PyDict_Size(copy));
    PyObject *bytes = made == NULL ? NULL : PyLong_FromSsize_t(taken);
    if (bytes == NULL) {
        Py_XDECREF(copy);
        Py_XDECREF(made);
        return NULL;
    }
    while (PyDict_Next(copy, &at, &key, &value)) {
        Py_INCREF(key);
        Py_INCREF(value);
        PyTuple_SetItem(made, next++, key);
        PyTuple_SetItem(made, next++, value);
    }
    PyTuple_SetItem(made, 0, copy);
    PyTuple_SetItem(made, 1, bytes);
    return made;
}

static PyObject *
freeze(PyObject *Py_UNUSED(module), PyObject *fields)
{
    int collects = PyGC_Disable();
    PyObject *made = frozen_of(fields);
    if (collects)
        PyGC_Enable();
    return made;
}

static int
holds_fields(PyObject *now, PyObject *frozen)
{
    Py_ssize_t at = 0, next = 2;
    PyObject *key, *value;
    if (!PyDict_CheckExact(now) || 2 + 2 * PyDict_GET_SIZE(now) != PyTuple_GET_SIZE(frozen))
        return 0;
    while (PyDict_Next(now, &at, &key, &value)) {
        PyObject *was_key = PyTuple_GET_ITEM(frozen, next++), *was = PyTuple_GET_ITEM(frozen, next++);
        if ((key != was_key && !is_same(key, was_key)) || (value != was && !is_same(value, was)))
            return 0;
    }
    return 1;
}

/* -1: an error. */
static int
holds_one(PyObject *message, PyObject *frozen)
{
    PyObject *extra = PyObject_GenericGetAttr(message, extra_name);
    PyObject *now = extra == NULL ? NULL : PyObject_GenericGetDict(message, NULL);
    int same = -1;
    if (now != NULL)
        same = (extra == Py_None || (PyDict_CheckExact(extra) && PyDict_GET_SIZE(extra) == 0))
               && holds_fields(now, frozen);
    Py_XDECREF(extra);
    Py_XDECREF(now);
    return same;
}

static PyObject *
hold(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *messages, *classes, *frozen;
    Py_ssize_t first;
    if (!PyArg_ParseTuple(args, "O!nO!O!", &PyList_Type, &messages, &first, &PyList_Type, &classes, &PyList_Type,
                          &frozen))
        return NULL;
    Py_ssize_t size = PyList_GET_SIZE(frozen);
    int same = first >= 0 && first <= PyList_GET_SIZE(messages) - size && PyList_GET_SIZE(classes) == size;
    for (Py_ssize_t at = 0; same == 1 && at < size; at++) {
        PyObject *message = PyList_GET_ITEM(messages, first + at);
        PyObject *one = PyList_GET_ITEM(frozen, at);
        if (!PyTuple_CheckExact(one))
            return PyErr_Format(PyExc_TypeError, "expected what freeze made");
        Py_INCREF(message);
        same = (PyObject *)Py_TYPE(message) == PyList_GET_ITEM(classes, at) ? holds_one(message, one) : 0;
        Py_DECREF(message);
    }
    return same < 0 ? NULL : PyBool_FromLong(same);
}

/* A message whose fields these become; REQUIRES a class of pydantic's. */
static PyObject *
built(PyObject *cls, PyObject *names, PyObject *fields)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)cls, Py_tp_alloc);
    PyObject *message = alloc((PyTypeObject *)cls, 0);
    if (message == NULL)
        return NULL;
    PyObject *given = PySet_New(names), *extra = PyDict_New();
    if (given == NULL || extra == NULL
        || PyObject_GenericSetAttr(message, fields_name, fields) < 0
        || PyObject_GenericSetAttr(message, given_name, given) < 0
        || PyObject_GenericSetAttr(message, extra_name, extra) < 0
        || PyObject_GenericSetAttr(message, private_name, Py_None) < 0)
        Py_CLEAR(message);
    Py_XDECREF(given);
    Py_XDECREF(extra);
    return message;
}

static PyObject *
build_all(PyObject *classes, PyObject *names, PyObject *frozen)
{
    Py_ssize_t size = PyList_Size(frozen);
    PyObject *made = PyList_New(size);
    for (Py_ssize_t at = 0; made != NULL && at < size; at++) {
        PyObject *cls = PyList_GetItem(classes, at), *one = PyList_GetItem(frozen, at), *message = NULL;
        PyObject *given = cls == NULL ? NULL : PyDict_GetItemWithError(names, cls);
        if (given != NULL && PyType_Check(cls) && PyTuple_CheckExact(one)) {
            PyObject *fields = copied(PyTuple_GetItem(one, 0), 0, NULL);
            message = fields == NULL ? NULL : built(cls, given, fields);
            Py_XDECREF(fields);
        }
        else if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "expected classes whose names are given, and what freeze made");
        if (message == NULL || PyList_SetItem(made, at, message) < 0)
            Py_CLEAR(made);
    }
    return made;
}

static PyObject *
build(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *classes, *names, *frozen;
    if (!PyArg_ParseTuple(args, "O!O!O!", &PyList_Type, &classes, &PyDict_Type, &names, &PyList_Type, &frozen))
        return NULL;
    int collects = PyGC_Disable();
    PyObject *made = build_all(classes, names, frozen);
    if (collects)
        PyGC_Enable();
    return made;
}

/* 1 if the value is of one of these types, or is this text, or anything may be there (None). */
static int
is_usual(PyObject *value, PyObject *usual)
{
    if (PyTuple_CheckExact(usual)) {
        for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(usual); at++)
            if ((PyObject *)Py_TYPE(value) == PyTuple_GET_ITEM(usual, at))
                return 1;
        return 0;
    }
    return usual == Py_None || is_same(value, usual);
}

/* 1 if the fields have these names, in this order, and hold what is usual there. */
static int
are_usual(PyObject *fields, PyObject *names, PyObject *usual)
{
    Py_ssize_t at = 0, next = 0, size = PyTuple_GET_SIZE(names);
    PyObject *key, *value;
    if (PyDict_GET_SIZE(fields) != size)
        return 0;
    while (PyDict_Next(fields, &at, &key, &value) && is_same(key, PyTuple_GET_ITEM(names, next))
           && is_usual(value, PyTuple_GET_ITEM(usual, next)))
        next++;
    return next == size;
}

/* NULL without an error: not plain. */
static PyObject *
message_of(PyObject *class, PyObject *unpack, PyObject *data)
{
    PyObject *body = PyObject_CallFunctionObjArgs(unpack, data, NULL), *message = NULL;
    if (body == NULL) {
        if (PyErr_ExceptionMatches(PyExc_ValueError))
            PyErr_Clear();
        return NULL;
    }
    PyObject *fields = PyList_CheckExact(body) ? PyList_GetItem(body, 2) : NULL, *is_plain = NULL;
    if (fields != NULL && PyDict_CheckExact(fields)) {
        int usual = are_usual(fields, PyTuple_GetItem(class, 3), PyTuple_GetItem(class, 4));
        PyObject *asked = PyTuple_GetItem(class, usual ? 5 : 6);
        if (asked != Py_None)
            is_plain = PyObject_CallFunctionObjArgs(asked, fields, NULL);
        if (asked == Py_None || is_plain == Py_True)
            message = built(PyTuple_GetItem(class, 1), PyTuple_GetItem(class, 2), fields);
        Py_XDECREF(is_plain);
    }
    Py_DECREF(body);
    return message;
}

/* The hook that opener makes; state: what that was given. */
static PyObject *
open_ext(PyObject *state, PyObject *args)
{
    PyObject *classes = PyTuple_GetItem(state, 2), *data;
    int code;
    if (!PyArg_ParseTuple(args, "iO!", &code, &PyBytes_Type, &data))
        return NULL;
    for (Py_ssize_t at = 0; code == EXT_MESSAGE && at < PyTuple_Size(classes); at++) {
        PyObject *class = PyTuple_GetItem(classes, at), *start = PyTuple_GetItem(class, 0);
        Py_ssize_t size = PyBytes_Size(start);
        if (PyBytes_Size(data) < size || memcmp(PyBytes_AsString(data), PyBytes_AsString(start), size) != 0)
            continue;
        PyObject *message = message_of(class, PyTuple_GetItem(state, 0), data);
        if (message != NULL || PyErr_Occurred())
            return message;
    }
    return PyObject_CallObject(PyTuple_GetItem(state, 1), args);
}

static PyMethodDef hook = {"open_ext", open_ext, METH_VARARGS, NULL};

static PyObject *
opener(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *unpack, *otherwise, *classes;
    if (!PyArg_ParseTuple(args, "OOO!", &unpack, &otherwise, &PyTuple_Type, &classes))
        return NULL;
    for (Py_ssize_t at = 0; at < PyTuple_Size(classes); at++) {
        PyObject *start, *cls, *given, *names, *usual, *own, *is_plain;
        PyObject *class = PyTuple_GetItem(classes, at);
        if (!PyTuple_Check(class)
            || !PyArg_ParseTuple(class, "O!O!O!O!O!OO", &PyBytes_Type, &start, &PyType_Type, &cls, &PySet_Type, &given,
                                 &PyTuple_Type, &names, &PyTuple_Type, &usual, &own, &is_plain)
            || PyTuple_Size(names) != PyTuple_Size(usual))
            return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "expected what is known of a class");
    }
    return PyCFunction_New(&hook, args);
}

static PyMethodDef functions[] = {
    {"freeze", freeze, METH_O, NULL},
    {"hold", hold, METH_VARARGS, NULL},
    {"build", build, METH_VARARGS, NULL},
    {"opener", opener, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_frozen", .m_size = -1, .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__frozen(void)
{
    fields_name = PyUnicode_InternFromString("__dict__");
    given_name = PyUnicode_InternFromString("__pydantic_fields_set__");
    extra_name = PyUnicode_InternFromString("__pydantic_extra__");
    private_name = PyUnicode_InternFromString("__pydantic_private__");
    narrow_name = PyUnicode_InternFromString("isascii");
    no_items = PyList_New(0);
    no_values = PyDict_New();
    if (fields_name == NULL || given_name == NULL || extra_name == NULL || private_name == NULL || narrow_name == NULL
        || no_items == NULL || no_values == NULL)
        return NULL;
    return PyModule_Create(&definition);
}
