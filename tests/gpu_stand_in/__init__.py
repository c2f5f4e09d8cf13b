"""A stand-in for CUDA: libraries by the names of CUDA's that keep a GPU's memory in main memory.

StarPU's own CUDA driver and this project's C run on it unchanged: registration, callbacks, polling of events, copies
between memories, launch programs, shutdown. A stream is a thread, so what is asynchronous on a card is asynchronous
here. Functions are the project's CUDA C compiled for the host, matrix products plain loops.
It says nothing of speed, nor of anything that only a card decides: its compiler, its scheduling, its memory model.
"""
