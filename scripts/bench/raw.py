"""The fastest plain loop: one trial after another, without Lightning, tracking, workers or seeded masks.

Data lies on the device and batches are gathered there; the optimizer is the fused AdamW; losses are summed on the
device and read once an epoch. On CUDA the whole step (gather, forward, backward, optimizer, sum) is one CUDA graph,
captured anew for each trial, since rates and weight decay are part of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from given_trials import own_examples
from parts import Parts
from torch import Tensor

from dropsearch.core.records import TrialSpec
from dropsearch.models.optimizers import parameter_groups

WARMING_STEPS = 3


class RawLoop:
    """Trains trials of a workload, one after the other: `begin` a trial, then `epoch` by epoch."""

    def __init__(self, parts: Parts) -> None:
        loader = parts.source.train_loader(0)
        self.make_module, self.device = parts.make_module, parts.device
        self.tensors, self.size, self.steps = own_examples(loader), loader.batch_size, parts.steps
        self.val = list(parts.source.val_dataloader())

    def begin(self, spec: TrialSpec) -> None:
        """Build a trial's network and optimizer; on CUDA capture its step."""
        cuda, self.graph = self.device.type == "cuda", None  # an earlier trial's graph gives its memory back
        self.net = self.make_module(spec).net.to(self.device).train()
        groups = parameter_groups(self.net, spec.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=spec.lr, fused=True, capturable=cuda)
        self.chosen = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        self.total = torch.zeros((), device=self.device)
        if cuda:
            self.graph = self._captured()
            torch.cuda.synchronize()

    def _captured(self) -> torch.cuda.CUDAGraph:
        initial = {name: value.clone() for name, value in self.net.state_dict().items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMING_STEPS):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)  # gradients are to lie in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        # Warming up trained the trial: it begins again, in the memory that the graph knows.
        self.net.load_state_dict(initial)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.total.zero_()
        return graph

    def _step(self) -> None:
        *inputs, target = (tensor.index_select(0, self.chosen) for tensor in self.tensors)
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.net(*inputs), target)
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach()

    def epoch(self) -> float:
        """Train one epoch and return its mean loss; reading it waits for the device."""
        self.net.train()
        self.total.zero_()
        order = torch.randperm(len(self.tensors[0]), device=self.device)[: self.steps * self.size]
        for chosen in order.view(self.steps, self.size):
            if self.graph is None:
                self.chosen = chosen
                self._step()
            else:
                self.chosen.copy_(chosen)
                self.graph.replay()
        return float(self.total) / self.steps

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Return loss and accuracy on the validation set."""
        self.net.eval()
        sums: list[Tensor] = []
        count = 0
        for *inputs, target in self.val:
            logits = self.net(*inputs)
            right = (logits.argmax(-1) == target).sum()
            sums.append(torch.stack([F.cross_entropy(logits, target, reduction="sum"), right.to(logits.dtype)]))
            count += len(target)
        loss, right = torch.stack(sums).sum(0).tolist()
        return loss / count, right / count
