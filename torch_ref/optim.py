"""The paper's update rule, and the optimizer that settings ask for."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.errors import UserError
from torch_ref.recipes import recipe_for


class MomentumInside(Optimizer):
    """Momentum with the learning rate inside the velocity (paper, section 5; cuda-convnet and Caffe alike).

    The update is::

        v <- momentum * v - weight_decay * lr * w - lr * gradient
        w <- w + v

    Equal to `torch.optim.SGD` only while the rate is constant: there the rate multiplies the whole velocity, so
    a drop acts on past gradients too. The gradient is that of the mean loss over the batch.

    Args:
        params: Parameters, or groups of them; a group may set `lr`, `lr_multiplier`, `momentum` and
            `weight_decay` of its own.
        lr: Learning rate, what schedules change.
        momentum: Share of the velocity that is kept.
        weight_decay: Pull towards zero, relative to the rate.
        lr_multiplier: Factor on `lr`, for biases that learn faster.

    Raises:
        UserError: A setting is negative, or the momentum is 1 or more.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        lr_multiplier: float = 1.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "lr_multiplier": lr_multiplier,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for name in defaults:
                if not group[name] >= 0 or (name == "momentum" and group[name] >= 1):
                    limit = "in [0, 1)" if name == "momentum" else "0 or more"
                    raise UserError(f"{name}={group[name]} is out of range; choose {limit}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; state holds its velocity as ``velocity``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr = group["lr"] * group["lr_multiplier"]
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if "velocity" not in self.state[weight]:
                    self.state[weight]["velocity"] = torch.zeros_like(weight)
            velocities = [self.state[weight]["velocity"] for weight in weights]
            gradients = [weight.grad for weight in weights]
            # All of a group at once, as PyTorch's own optimizers do: one by one, a GPU would wait for Python.
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_sub_(velocities, weights, alpha=group["weight_decay"] * lr)
            torch._foreach_sub_(velocities, gradients, alpha=lr)
            torch._foreach_add_(weights, velocities)
        return loss


def parameter_groups(network: nn.Module, settings: CompleteSettings) -> list[dict[str, Any]]:
    """A network's parameters grouped by the run's rates and decays, these by layer where its recipe has them so.

    Parameters that need no gradient, which are those of frozen layers, are in none of them. Layer names are the last
    but one part of a parameter's name, so wrappers (``module.``) do no harm.

    Returns:
        Groups with `params`, `lr_multiplier` and `weight_decay`, in order of first appearance.
    """
    by_layer = recipe_for(settings.recipe, settings.model).layer_weight_decay
    groups: dict[tuple[float, float], list[Tensor]] = {}
    *_, (last_name, _) = network.named_parameters()
    last = last_name.split(".")[-2]
    for name, parameter in network.named_parameters():
        layer, kind = name.split(".")[-2:]
        if not parameter.requires_grad:
            continue
        multiplier, decay = 1.0, by_layer.get(layer, settings.weight_decay)
        if kind == "bias":
            multiplier = settings.bias_learning_rate_factor
            decay = decay if settings.decay_biases else 0.0
        if layer == last:
            multiplier *= settings.new_layer_learning_rate_factor
        groups.setdefault((multiplier, decay), []).append(parameter)
    return [
        {"params": parameters, "lr_multiplier": multiplier, "weight_decay": decay}
        for (multiplier, decay), parameters in groups.items()
    ]


def build_optimizer(network: nn.Module, settings: CompleteSettings) -> Optimizer:
    """The run's optimizer over all parameters of a network, at the first learning rate.

    Raises:
        UserError: An unknown optimizer.
    """
    groups = parameter_groups(network, settings)
    match settings.optimizer:
        case "paper":
            return MomentumInside(groups, lr=settings.learning_rate, momentum=settings.momentum)
        case "sgd":
            optimizer: Optimizer = SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
        case "adam":
            optimizer = Adam(groups, lr=settings.learning_rate)
        case _:
            raise UserError(f"unknown optimizer {settings.optimizer!r}; choose one of: adam, sgd, paper")
    set_learning_rate(optimizer, settings.learning_rate)
    return optimizer


def clip_gradients(network: nn.Module, limit: float) -> None:
    """Scale a network's gradients to a norm of `limit` over all of them, where it is that or more.

    `torch.nn.utils.clip_grad_norm_` divides by the norm plus 1e-6, after which it would be a little less than `limit`;
    here, as in optax, it is `limit`.
    """
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    scale = torch.where(norm < limit, 1.0, limit / norm)  # chosen on the device, which nobody waits for
    for gradient in gradients:
        gradient.mul_(scale)


@contextlib.contextmanager
def at_rate(optimizer: Optimizer, rate: float) -> Iterator[None]:
    """A learning rate for one step, where a plateau's counter keeps its own in the optimizer."""
    kept = [group["lr"] for group in optimizer.param_groups]
    if rate != learning_rate_of(optimizer):
        set_learning_rate(optimizer, rate)
    yield
    for group, own in zip(optimizer.param_groups, kept, strict=True):
        group["lr"] = own


def freeze(network: nn.Module, layers: Sequence[str]) -> None:
    """Leave the parameters of these children of a network as they are: no gradient, no decay, no memories."""
    for name in layers:
        network.get_submodule(name).requires_grad_(False)


def learning_rate_of(optimizer: Optimizer) -> float:
    """The learning rate that an optimizer has, without any group's multiplier; see `set_learning_rate`."""
    group = next(
        (one for one in optimizer.param_groups if one.get("lr_multiplier", 1.0) == 1), optimizer.param_groups[0]
    )
    inside = isinstance(optimizer, MomentumInside)
    return float(group["lr"] if inside else group["lr"] / group.get("lr_multiplier", 1.0))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the weights' learning rate; groups with an `lr_multiplier` get theirs by it.

    `MomentumInside` multiplies by itself; PyTorch's optimizers know no multiplier, their groups carry the product.
    """
    for group in optimizer.param_groups:
        inside = isinstance(optimizer, MomentumInside)
        group["lr"] = rate if inside else rate * group.get("lr_multiplier", 1.0)
