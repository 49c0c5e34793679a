"""Train GMG-L on Moving MNIST: 10 frames in, 10 out.

    python jobs/reprocess.py convert --archive moving_mnist --source FOLDER --store STORE
    python jobs/train_moving_mnist.py --store STORE --run RUN --workers 2
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT

FOLDER holds train-images-idx3-ubyte.gz and, for the test split, mnist_test_seq.npy or
t10k-images-idx3-ubyte.gz. The store holds a fixed number of clips (--samples 10000), and an epoch
is one pass over them. The papers make new clips in every epoch: one epoch of --samples 100000
stands for ten of theirs, and sees no clip twice. For 10 -> 30 frames, convert with --frames 40 and
train with --data.horizon 30.

The defaults are jobs/configs/moving_mnist.yaml. The way through the code is described in
jobs/train_weatherbench.py.
"""

from jobs.command_line import main_guard
from jobs.training.entry import train_from


def main() -> None:
    """Train; the defaults are those of `jobs/configs/moving_mnist.yaml`."""
    train_from("moving_mnist.yaml", description=__doc__)


if __name__ == "__main__":
    main_guard(main)
