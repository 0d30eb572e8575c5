"""The PyTorch reference's recipes against the figures."""

import math

import facts
import pytest

from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.errors import UserError
from torch_ref import augment
from torch_ref.recipes import RECIPES, recipe_for
from torch_ref.resolved_settings import resolve, schedule_of
from torch_ref.schedules import Constant, EveryEpochs, EverySteps, Milestones, Plateau, Schedule, learning_rate


def schedule(recipe: str, model: str = "two_column") -> Schedule:
    return schedule_of(resolve(TrainSettings(recipe=recipe, model=model)))


def test_names() -> None:
    assert set(RECIPES) == {*facts.RECIPES, "cifar"}
    assert all(recipe.name == name for name, recipe in RECIPES.items())


@pytest.mark.parametrize("name", facts.RECIPES)
def test_figures(name: str) -> None:
    expected, recipe = facts.RECIPES[name], RECIPES[name]
    assert recipe.batch_size == expected.batch
    assert recipe.learning_rate == expected.learning_rate
    assert recipe.momentum == (expected.momentum or 0.0)
    assert recipe.weight_decay == expected.weight_decay
    assert recipe.bias_learning_rate_factor == expected.bias_rate
    assert recipe.decay_biases == expected.biases_decay
    # Caffe's run is so many iterations long, over the 1,281,167 images of ILSVRC-2012.
    epochs = facts.CAFFE_MAX_ITERATIONS * expected.batch / 1_281_167
    assert recipe.epochs == (math.ceil(epochs) if expected.epochs is None else expected.epochs)


def test_optimizers_and_schedules() -> None:
    kinds = {name: (recipe.optimizer, type(schedule(name))) for name, recipe in RECIPES.items()}
    assert kinds == {
        "blog": ("adam", Constant),
        "paper": ("paper", Plateau),
        "caffe": ("paper", EverySteps),
        "torchvision": ("sgd", EveryEpochs),
        "cifar": ("paper", Milestones),
    }
    paper = schedule("paper")
    assert isinstance(paper, Plateau)
    assert paper.factor == 0.1


def test_rates_over_whole_runs() -> None:
    caffe = RECIPES["caffe"]
    for step, rate in [(0, 1e-2), (99_999, 1e-2), (100_000, 1e-3), (399_999, 1e-5), (400_000, 1e-6)]:
        found = learning_rate(schedule("caffe"), caffe.learning_rate, epoch=0, step=step)
        assert found == pytest.approx(rate, rel=1e-14)
    torchvision = RECIPES["torchvision"]
    for epoch, rate in [(0, 1e-2), (29, 1e-2), (30, 1e-3), (59, 1e-3), (60, 1e-4), (89, 1e-4)]:
        found = learning_rate(schedule("torchvision"), torchvision.learning_rate, epoch=epoch, step=0)
        assert found == pytest.approx(rate, rel=1e-14)


@pytest.mark.parametrize("model", facts.CIFAR_RECIPES)
def test_cifar(model: str) -> None:
    expected, recipe = facts.CIFAR_RECIPES[model], recipe_for("cifar", model)
    assert recipe.learning_rate == expected.learning_rate
    assert recipe.bias_learning_rate_factor == expected.bias_rate
    assert recipe.momentum == expected.momentum
    assert recipe.batch_size == 128
    assert recipe.weight_init == "variant"
    assert recipe.normalize == "mean_image"
    drops = schedule("cifar", model)
    assert isinstance(drops, Milestones)
    assert recipe.epochs == drops.epochs[-1] + (2 if model == "cifar_80sec" else 10)
    crops = model in facts.CIFAR_CROP
    assert (recipe.crop, recipe.flip, recipe.color_noise) == (crops, crops, False)
    assert resolve(TrainSettings(model=model)).stored_size == 32  # of CIFAR-10, resized by none of them


def test_cifar_18pct_drops() -> None:
    recipe = recipe_for("cifar", "cifar_18pct")
    first, second = facts.CIFAR_18PCT_MILESTONES
    for epoch, rate in [(first - 1, 1e-3), (first, 1e-4), (second - 1, 1e-4), (second, 1e-5)]:
        found = learning_rate(schedule("cifar", "cifar_18pct"), recipe.learning_rate, epoch=epoch, step=0)
        assert found == pytest.approx(rate, rel=1e-14)


def test_pictures() -> None:
    assert (augment.IMAGENET_MEAN, augment.IMAGENET_STD) == (facts.IMAGENET_MEAN, facts.IMAGENET_STD)
    assert augment.PCA_NOISE == 0.1
    found = {name: (recipe.normalize, recipe.crop, recipe.flip, recipe.color_noise) for name, recipe in RECIPES.items()}
    assert found == {
        "blog": ("half", False, False, False),
        "paper": ("mean_image", True, True, True),
        "caffe": ("mean_image", True, True, False),
        "torchvision": ("imagenet", True, True, False),
        "cifar": ("mean_image", False, False, False),
    }
    for model, recipe in (("two_column", "paper"), ("caffe_alexnet", "caffe"), ("one_weird_trick", "torchvision")):
        assert resolve(TrainSettings(model=model, recipe=recipe)).stored_size == 256


def test_networks_with_a_start_of_their_own_keep_it_in_their_family() -> None:
    assert recipe_for("paper", "single_column").weight_init == "paper"
    assert recipe_for("paper", "cuda_convnet_2012").weight_init == "variant"
    assert recipe_for("caffe", "caffe_alexnet").weight_init == "caffe"
    assert recipe_for("caffe", "caffenet").weight_init == "variant"
    assert recipe_for("blog", "single_column").weight_init == "pytorch"
    assert recipe_for("torchvision", "one_weird_trick").weight_init == "pytorch"


def test_unknown_recipe_is_refused() -> None:
    with pytest.raises(UserError, match=r"papers.*blog, paper, caffe, torchvision, cifar"):
        recipe_for("papers", "two_column")
