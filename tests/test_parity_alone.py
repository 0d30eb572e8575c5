"""The harness that compares any two models needs nothing of the networks that this repository compares with it."""

import subprocess
import sys

ALONE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax_alexnet", "torch_ref", "alexnet_io"):
            raise ImportError(f"{name} is hidden")

sys.meta_path.insert(0, Hidden())
import importlib, pkgutil
import flax.linen as nn, jax, numpy as np, torch
import parity

for name in ("bounds", "kinds", "comparison", "reference", "candidate", "causes", "mapping", "reports"):
    package = importlib.import_module(f"parity.{name}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)

class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="head")(nn.relu(nn.Conv(4, (3, 3), name="conv")(x)).reshape(len(x), -1))

class Original(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Linear(4 * 5 * 5, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).permute(0, 2, 3, 1).flatten(1))

x = np.random.default_rng(0).normal(size=(2, 2, 5, 5))
right = parity.compare(Net(), Original(), x)
print("right", right.equal)

class Wrong(Original):
    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).permute(0, 3, 2, 1).flatten(1))

print("wrong", parity.compare(Net(), Wrong(), x).equal)
"""


def test_the_general_harness_stands_alone(tmp_path):
    """With this repository's other packages hidden, two models are compared, and a wrong one is found."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["right True", "wrong False"], done.stderr[-2000:]
