"""Makes digits.npy: the UCI digits, 1,797 images of 8x8 with values 0..16, from scikit-learn's copy (Debian: python3-sklearn)."""
import pathlib
import numpy
from sklearn.datasets import load_digits

numpy.save(pathlib.Path(__file__).parent / "digits.npy", load_digits().images.astype(numpy.uint8))
