/* What plain values are the same: for all that is compiled. REQUIRES Python.h and string.h. */

/* 1 if `now` is in type, order and bits what `was` is, a plain value; else 0. */
static int
is_same(PyObject *now, PyObject *was)
{
    PyTypeObject *type = Py_TYPE(was);
    if (now == was)
        return 1;
    if (Py_TYPE(now) != type)
        return 0;
    if (type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBytes_Type)
        return PyObject_RichCompareBool(now, was, Py_EQ) == 1;
    if (type == &PyFloat_Type) {
        double one = PyFloat_AsDouble(now), other = PyFloat_AsDouble(was);
        return memcmp(&one, &other, sizeof one) == 0;
    }
    if (type == &PyList_Type) {
        Py_ssize_t size = PyList_GET_SIZE(was);
        if (PyList_GET_SIZE(now) != size)
            return 0;
        for (Py_ssize_t at = 0; at < size; at++)
            if (!is_same(PyList_GET_ITEM(now, at), PyList_GET_ITEM(was, at)))
                return 0;
        return 1;
    }
    if (type == &PyDict_Type) {
        Py_ssize_t at = 0, was_at = 0;
        PyObject *key, *value, *was_key, *was_value;
        if (PyDict_GET_SIZE(now) != PyDict_GET_SIZE(was))
            return 0;
        if (PyDict_GET_SIZE(was) == 0)
            return 1;
        while (PyDict_Next(was, &was_at, &was_key, &was_value))
            if (!PyDict_Next(now, &at, &key, &value) || !is_same(key, was_key) || !is_same(value, was_value))
                return 0;
        return 1;
    }
    return 0; /* None and the bools: there is one of each */
}
