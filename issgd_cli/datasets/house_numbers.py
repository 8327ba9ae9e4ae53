"""The built-in dataset: drawn house-number digits that look and train like SVHN, made on the spot, without a network.

Each example is a 32x32 RGB crop around one digit of a house number: one of 20 fonts in 4 stroke widths, neighbours cut
off at the sides, seen in perspective, blurred, on a wall with clutter, uneven light and grain; one in eleven is hard
(faint, blurred, off centre, partly hidden). Digits are as frequent as in SVHN. An example depends on its number
and the seed alone, so neither the size of the dataset nor the number of processes changes it. Fonts are rendered by
Pillow's FreeType: another version of it may draw other pixels, which the fingerprint then shows.

Against real SVHN crops (the first 1,083 official train and the first 7,000 official test crops; test: the next 2,000
official test crops), 7,678 train and 2,000 test examples each. MLP 3072-4x256-10 with initial weights
N(0, 0.01^2), times sqrt(2048 / 256) for the hidden layers after the first, SGD with Nesterov momentum 0.95, learning
rate 0.01, batch 128, means over 3 seeds. Spread of the per-example gradient norms of the train examples:

|                             | SVHN crops              | house-numbers           |
|-----------------------------|-------------------------|-------------------------|
| pixel mean, std             | 117.3, 57.0             | 117.9, 57.2             |
| std of the images' means    | 45.0                    | 44.9                    |
| std within an image, p10 / p50 / p90 | 17.7 / 28.8 / 48.1 | 18.0 / 29.6 / 47.0  |
| std from grey (colour)      | 11.6                    | 11.8                    |
| mean step to the next pixel, across and down | 8.35, 5.91 | 8.38, 5.88          |
| **step 600**: loss and error, train | 1.05, 0.350     | 1.28, 0.470             |
| error, test                 | 0.400                   | 0.478                   |
| norms: mean, std / mean     | 21.1, 0.95              | 20.0, 0.88              |
| p50, p90, p99 / mean        | 0.73, 2.25, 4.37        | 0.74, 2.16, 4.17        |
| **step 900**: loss and error, train | 0.61, 0.195     | 0.60, 0.196             |
| error, test                 | 0.292                   | 0.258                   |
| norms: mean, std / mean     | 19.2, 1.34              | 18.0, 1.36              |
| p50, p90, p99 / mean        | 0.41, 2.85, 5.79        | 0.39, 2.90, 5.89        |
| **step 3600**: loss and error, train | 0.089, 0.028   | 0.089, 0.028            |
| error, test                 | 0.245                   | 0.202                   |
| norms: mean, std / mean     | 6.5, 4.44               | 5.3, 4.24               |
| p50, p90, p99 / mean        | 0.00, 1.23, 24.5        | 0.00, 1.50, 22.9        |
"""

import os
import threading
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from issgd_cli.datasets import digits
from issgd_cli.datasets.sources import Block, Dataset, Part, Progress, Recipe, Request, generated_size

SHAPE = (3, 32, 32)
CLASSES = 10
SIZE = 60_000  # train and valid together, unless told otherwise
TEST_SIZE = 10_000
LARGEST = 10_000_000
BLOCK = 512  # examples drawn at once by a process


def recipe(request: Request) -> Recipe:
    """House numbers: `size` train and valid examples (60,000 unless given) and 10,000 test examples.

    Raises:
        DataError: A size below 1 or above 10,000,000; or official files were named, of which there are none.
    """
    size = generated_size("house-numbers", request, SIZE, LARGEST)
    drawn = {"version": digits.VERSION, "seed": digits.SEED}
    parameters = {"origin": "generated", **drawn, "size": size, "test_size": TEST_SIZE}

    def open_generator(_: Progress) -> Dataset:
        import PIL

        digits.font_files()
        # Test examples have numbers of their own, so that they stay the same for every size.
        train, test = Part(size, blocks(0, size)), Part(TEST_SIZE, blocks(LARGEST, TEST_SIZE))
        return Dataset(SHAPE, CLASSES, train, test, lambda: [{**parameters, "pillow": PIL.__version__}])

    return Recipe(parameters, open_generator)


def blocks(first: int, count: int, seed: int = digits.SEED, processes: int | None = None) -> Iterator[Block]:
    """The same examples as `digits.examples`, in order, drawn by several processes.

    Args:
        first: Number of the first example.
        count: How many.
        seed: Of all examples.
        processes: How many draw; None for as many as there are cores. Never changes a byte.
    """
    spans = deque((start, min(BLOCK, first + count - start)) for start in range(first, first + count, BLOCK))
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(processes, len(spans) // 4)  # starting a process takes as long as drawing a few blocks
    if processes < 2:
        for span in spans:
            images, labels = digits.examples(*span, seed)
            yield images.reshape(len(labels), -1), labels
        return

    import multiprocessing
    from concurrent.futures import Future, ProcessPoolExecutor

    # Spawned, not forked: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)
    try:
        drawn: deque[Future[tuple[NDArray[np.uint8], NDArray[np.uint8]]]] = deque()
        while spans or drawn:
            while spans and len(drawn) < 2 * processes:  # few at a time, or finished blocks would fill the memory
                drawn.append(pool.submit(digits.examples, *spans.popleft(), seed))
            images, labels = drawn.popleft().result()
            yield images.reshape(len(labels), -1), labels
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """In a drawing process: leave Ctrl-C to the parent, and do not outlive it."""
    import multiprocessing
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
