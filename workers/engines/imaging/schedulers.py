"""The samplers by their usual names. A scheduler keeps state from step to step, so every run gets a fresh one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLUS: Mapping[str, Any] = {"algorithm_type": "dpmsolver++", "use_karras_sigmas": False}
STOCHASTIC: Mapping[str, Any] = {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": False}
KARRAS: Mapping[str, Any] = {"use_karras_sigmas": True}

# name -> (class in diffusers, what differs from the model's own configuration)
TABLE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", PLUS),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {**PLUS, **KARRAS}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", STOCHASTIC),
    "dpmpp_2m_sde_karras": ("DPMSolverMultistepScheduler", {**STOCHASTIC, **KARRAS}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "euler_karras": ("EulerDiscreteScheduler", KARRAS),
    "flow_euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


def plain(name: str) -> str:
    """One spelling of a name: `DPM++ 2M Karras` is `dpmpp_2m_karras`."""
    return name.strip().lower().replace("++", "pp").replace("-", "_").replace(" ", "_")


def usable(base: Any) -> list[str]:
    """The names that a model made for the scheduler `base` can be sampled with."""
    classes = {base.__class__.__name__, *(each.__name__ for each in base.compatibles)}
    if "DDIMScheduler" in classes:
        # It reads the same configuration, only diffusers does not list it.
        classes.add("LCMScheduler")
    return sorted(name for name, (wanted, _) in TABLE.items() if wanted in classes)


def fresh(base: Any, name: str | None) -> Any:
    """A new scheduler on the model's configuration; of the model's own class where no name is given."""
    if name is None:
        return base.__class__.from_config(base.config)
    import diffusers

    wanted, changes = TABLE[name]
    return getattr(diffusers, wanted).from_config(base.config, **changes)
