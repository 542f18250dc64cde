"""Reads at address zero."""
import ctypes


def predict(parameters):
    return ctypes.string_at(0)
