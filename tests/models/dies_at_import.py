"""Ends its process while it is imported."""
import os
import signal
import sys

sys.stderr.write("the end is near\n")
sys.stderr.flush()
os.kill(os.getpid(), signal.SIGSEGV)
