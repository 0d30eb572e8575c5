"""What is known of tensors' errors, by the memory that their values lie in."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from parity.bounds.torch_operation import Terms, Tracked

EXACT = Tracked()


class KnownErrors:
    """Bounds of tensors, and which maps were flattened into them; views of one memory see each other's."""

    def __init__(self) -> None:
        # A weak reference keeps an address from being used again while its entry is here.
        self._known: dict[tuple, tuple[Tracked, StorageWeakRef]] = {}
        # Memory that was written to in parts: the errors of all its elements, as they lie there.
        self._written: dict[int, tuple[Tracked, StorageWeakRef]] = {}
        self._maps: dict[tuple, tuple[tuple[int, ...], StorageWeakRef]] = {}
        # Sums that nothing has taken yet.
        self._sums: dict[tuple, tuple[Terms, StorageWeakRef]] = {}

    def map_shape(self, tensor: Tensor) -> tuple[int, ...] | None:
        """(C, H, W) of the map that was flattened into the rows of `tensor`; None if none was."""
        entry = self._maps.get(_key(tensor))
        return entry[0] if entry else None

    def set_map_shape(self, tensor: Tensor, shape: tuple[int, ...] | None) -> None:
        """Say which map's flattening `tensor` holds."""
        if shape is None:
            self._maps.pop(_key(tensor), None)
        else:
            self._maps[_key(tensor)] = shape, StorageWeakRef(tensor.untyped_storage())

    def get(self, tensor: Tensor) -> Tracked:
        """What is known of `tensor`; exact if nothing."""
        if (whole := self._written.get(tensor.untyped_storage()._cdata)) is not None:
            return replace(whole[0], error=_region(whole[0], tensor).clone())
        entry = self._known.get(_key(tensor))
        return entry[0] if entry else EXACT

    def put(self, tensor: Tensor, tracked: Tracked) -> None:
        """Set what is known of `tensor`."""
        storage = tensor.untyped_storage()._cdata
        if (whole := self._written.get(storage)) is not None:
            region = _region(whole[0], tensor)
            region.zero_() if tracked.error is None else region.copy_(tracked.error)
            unknown = tuple(dict.fromkeys([*whole[0].unknown, *tracked.unknown]))
            joined = Tracked(whole[0].error, max(whole[0].depth, tracked.depth), unknown)
            self._written[storage] = joined, whole[1]
        elif tracked.error is None and not tracked.unknown:
            self.forget(tensor)
        else:
            self._known[_key(tensor)] = tracked, StorageWeakRef(tensor.untyped_storage())

    def terms(self, tensor: Tensor) -> Terms | None:
        """What `tensor` is the sum of, until something takes it; None if it is no sum, or was taken."""
        entry = self._sums.get(_key(tensor))
        return entry[0] if entry and not entry[1].expired() else None

    def set_terms(self, tensor: Tensor, terms: Terms | None) -> None:
        """Say what `tensor` is the sum of."""
        if terms is None:
            self._sums.pop(_key(tensor), None)
        else:
            self._sums[_key(tensor)] = terms, StorageWeakRef(tensor.untyped_storage())

    def unbounded(self, named: dict[str, Tensor]) -> dict[str, list[str]]:
        """Which of the tensors have no bound, by the names given, and for want of which operations' rules."""
        return {name: list(unknown) for name, t in named.items() if (unknown := self.get(t).unknown)}

    def purge(self) -> None:
        """Drop the bounds of tensors that no longer exist."""
        self._known = {key: entry for key, entry in self._known.items() if not entry[1].expired()}
        self._maps = {key: entry for key, entry in self._maps.items() if not entry[1].expired()}
        self._written = {key: entry for key, entry in self._written.items() if not entry[1].expired()}
        self._sums = {key: entry for key, entry in self._sums.items() if not entry[1].expired()}

    def forget(self, *tensors: Tensor) -> None:
        """Take `tensors` as exact from now on."""
        for tensor in tensors:
            self._known.pop(_key(tensor), None)
            if (whole := self._written.get(tensor.untyped_storage()._cdata)) is not None:
                _region(whole[0], tensor).zero_()

    def write_in_part(self, tensor: Tensor) -> None:
        """Follow the memory of `tensor` element by element from now on, if that is only a part of it."""
        storage = tensor.untyped_storage()
        elements = storage.nbytes() // tensor.element_size()
        if elements <= tensor.numel() or 0 in tensor.stride() or not tensor.is_floating_point():
            return
        reference = StorageWeakRef(storage)
        if (known := self._written.get(storage._cdata)) is not None and not known[1].expired():
            return
        whole = torch.zeros(elements, dtype=torch.float64, device=tensor.device)
        depth, unknown = 0, []
        for (address, offset, shape, stride), (tracked, weak) in list(self._known.items()):
            if address == storage._cdata and not weak.expired() and 0 not in stride:
                if tracked.error is not None:
                    region = whole.as_strided(shape, stride, offset)
                    region.copy_(torch.maximum(region, tracked.error))
                depth, unknown = max(depth, tracked.depth), [*unknown, *tracked.unknown]
        self._written[storage._cdata] = Tracked(whole, depth, tuple(dict.fromkeys(unknown))), reference


def _region(whole: Tracked, tensor: Tensor) -> Tensor:
    """The errors of a tensor in memory whose errors are all known."""
    errors = whole.error if whole.error is not None else torch.zeros_like(tensor, dtype=torch.float64)
    return errors.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _key(tensor: Tensor) -> tuple:
    """Identity of a tensor's values: Python objects of one tensor differ above and below autograd."""
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())
