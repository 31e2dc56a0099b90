"""How far a run is: its step, losses, optimizer, bank and best adapter, and what changes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .bank import Bank
from .learning_rate import fall, learning_rate
from .run import Run
from .state import State, pack, unpack

ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8  # AlignGuard's launchers
BANK = "bank"  # name of the bank's errors among the tensors of a state
BEST = "best."  # prefix of the best adapter's factors among the tensors of a state


class Progress:
    """How far a run is.

    `advance` takes an optimizer step, `measured` adds figures on held-out pairs, `restore` and `resume` set
    the run to a state, and `undo_unfinished_step` takes back a step that failed. Nothing else changes how far
    the run is; `step` also clears the optimizer's gradients and scales the loss before `advance`.

    Attributes:
        step: optimizer steps done.
        losses: the loss of every step.
        metrics: of the last step, as in `metrics.jsonl`.
        validations: every measurement on held-out pairs, with its step.
        best: the adapter with the largest held-out margin, on the CPU; None without `patience`.
        optimizer: AdamW over the adapter's factors.
        scaler: scales the loss where the UNet runs in fp16.
        bank: the base model's errors on fixed draws.
    """

    def __init__(self, run: Run) -> None:
        config, device = run.config, run.device
        self.step = 0
        self.losses: list[float] = []
        self.metrics: dict[str, float] = {}
        self.validations: list[dict[str, float]] = []
        self.best: State | None = None
        self.optimizer = torch.optim.AdamW(
            run.parameters.values(), betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=config.weight_decay
        )
        scaler_device = device.type if device.type in ("cuda", "cpu") else "cpu"
        self.scaler = torch.amp.GradScaler(scaler_device, enabled=run.autocast == torch.float16)
        num_prompts = 2 if config.safe_prompt_weight > 0 else 1
        self.bank = Bank(run.data.num_pairs, config.bank, num_prompts, device)
        self._run = run
        self._last_good: State | None = None  # the newest state whose loss is known to be finite
        self._best_before: State | None = None  # takes the place of `best` if the step of `best` is undone
        self._is_finished = True  # False from the update of the adapter until all of its step is done

    def advance(self, figures: Mapping[str, Tensor], bank_rows: Tensor, ref_errors: Tensor) -> None:
        """Take the optimizer step along the gradients that stand in the adapter's factors.

        Args:
            figures: scalars of the step, `loss` among them.
            bank_rows: rows of the bank that the pairs of the step have, (pairs,) int64 on the CPU.
            ref_errors: the base model's errors on these pairs, (pairs, 2 * prompts) fp32.

        Raises:
            RuntimeError: if the loss or its gradient is not finite.
        """
        config = self._run.config
        self.scaler.unscale_(self.optimizer)
        factors = list(self._run.parameters.values())
        grad_norm = nn.utils.clip_grad_norm_(factors, config.max_grad_norm or math.inf)
        # the only wait for the device in a step
        values = torch.stack([*figures.values(), grad_norm]).tolist()
        with self.unfinished_step():
            metrics = self._finite_metrics(dict(zip([*figures, "grad_norm"], values, strict=True)))
            self._last_good = State(
                self.step, self._copied_tensors(), {"metrics": self.metrics, BANK: len(self.bank)}
            )
            rate = learning_rate(config, self.step, fall(config, self.validations))
            self.optimizer.param_groups[0]["lr"] = rate
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.step += 1
            self.losses.append(metrics["loss"])
            self.metrics = {"step": self.step, **metrics, "learning_rate": rate}
            if config.bank:
                self.bank.keep(bank_rows, ref_errors)

    def measured(self, figures: Mapping[str, float]) -> None:
        """Add the figures on held-out pairs after the last step; keep the adapter if it is the best so far.

        Raises:
            RuntimeError: if a figure is not finite.
        """
        named = {f"validation_{name}": value for name, value in figures.items()}
        self._refuse_not_finite(named, step=self.step)
        self.validations.append({"step": self.step, **figures})
        self.metrics |= named
        if self._run.config.patience and self.best_step == self.step:
            factors = {name: factor.detach().cpu().clone() for name, factor in self._run.parameters.items()}
            self._best_before, self.best = self.best, State(self.step, factors, {"metrics": self.metrics})

    @property
    def best_step(self) -> int:
        """The step of the first measurement with the largest margin."""
        return max(self.validations, key=lambda figures: figures["margin"])["step"]

    @property
    def last_step(self) -> int:
        """The step that training ends with, as far as the measurements up to now tell.

        It is the last of the options, unless the learning rate falls earlier (see `fall`), or `patience`
        measurements have passed without a larger margin.
        """
        config = self._run.config
        falling = fall(config, self.validations)
        last = falling.end if falling else config.steps
        if config.patience and self.validations:
            best, steps = self.best_step, [figures["step"] for figures in self.validations]
            later = [step for step in steps if step > best]
            last = min([last, *later[config.patience - 1 :]])
        return last

    @property
    def is_finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.last_step

    @contextmanager
    def unfinished_step(self) -> Iterator[None]:
        """Mark the last step as unfinished until the block ends without an error."""
        self._is_finished = False
        yield
        self._is_finished = True

    def undo_unfinished_step(self) -> None:
        """Go back to the last good state, if the last step was not finished and there is such a state."""
        if not self._is_finished and self._last_good:
            self.restore(self._last_good)

    def restore(self, state: State) -> None:
        """Set the factors, the optimizer, the bank and the step to a state, and forget what came after it."""
        unpack(state.tensors, self._run.parameters, self.optimizer)
        if BANK in state.tensors:
            self.bank.restore(state.tensors[BANK])
        elif BANK in state.values:
            self.bank.forget_after(state.values[BANK])
        self.step, self.metrics, self._is_finished = state.step, dict(state.values["metrics"]), True
        del self.losses[state.step :]
        self.validations = [figures for figures in self.validations if figures["step"] <= state.step]
        if self.best and self.best.step > state.step:
            self.best = self._best_before

    def resume(self, state: State) -> None:
        """Continue from a state that an earlier run saved, see `state`."""
        self.losses, self.validations = (list(state.values[name]) for name in ("losses", "validations"))
        if "best" in state.values:
            values = dict(state.values["best"])
            names = [name for name in state.tensors if name.startswith(BEST)]
            factors = {name.removeprefix(BEST): state.tensors[name] for name in names}
            self.best = State(values.pop("step"), factors, values)
        self.scaler.load_state_dict(state.values["scaler"])
        self.restore(state)

    def state(self, identity: Mapping[str, Any]) -> State:
        """Return the state to save, from which `resume` continues.

        Args:
            identity: JSON values that say which run this is, see `run_identity`.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in ("losses", "metrics", "validations")}
        values |= {"micro_batch": self._run.micro_batch, "scaler": self.scaler.state_dict(), **identity}
        tensors = pack(self._run.parameters, self.optimizer)
        if self._run.config.bank:
            tensors[BANK] = self.bank.errors
        if self.best:
            tensors |= {f"{BEST}{name}": tensor for name, tensor in self.best.tensors.items()}
            values["best"] = {"step": self.best.step, **self.best.values}
        return State(self.step, tensors, values)

    def _finite_metrics(self, metrics: dict[str, float]) -> dict[str, float]:
        """Return the metrics of a step, without `grad_norm` where fp16 overflowed, or raise."""
        overflowed = not math.isfinite(metrics["grad_norm"]) and self.scaler.is_enabled()
        if overflowed and self.scaler.get_scale() >= 1:
            del metrics["grad_norm"]  # the scaler skips this step and lowers its scale
        if not math.isfinite(metrics.get("grad_norm", 0.0)) and math.isfinite(metrics["loss"]):
            metrics = {f"grad_norm{self._damaged_gradients()}": metrics["grad_norm"], **metrics}
        self._refuse_not_finite(metrics, step=self.step + 1)
        return metrics

    def _damaged_gradients(self) -> str:
        """Return the first factor whose gradient is not finite, unless clipping has spread NaN to all."""
        factors = self._run.parameters.items()
        names = [name for name, factor in factors if not bool(factor.grad.isfinite().all())]
        if not 0 < len(names) < len(factors):
            return ""
        return f" of {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")

    def _refuse_not_finite(self, figures: Mapping[str, float], *, step: int) -> None:
        for name, value in figures.items():
            if not math.isfinite(value):
                good_step = self._last_good.step if self._last_good else self.step
                advice = " Or use precision fp32." if self._run.autocast else ""
                raise RuntimeError(
                    f"{name} is not finite ({value}) in step {step}. The adapter was set back to step "
                    f"{good_step}. Lower learning_rate.{advice}"
                )

    def _copied_tensors(self) -> dict[str, Tensor]:
        tensors = pack(self._run.parameters, self.optimizer)
        return {name: tensor.clone() for name, tensor in tensors.items()}
