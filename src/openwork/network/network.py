"""A network opened: the user's own module, its map of sites, and the calls that run it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from openwork.edit import Edit
from openwork.errors import BadInput
from openwork.network.anatomy import SiteInfo
from openwork.network.generate import Generation, generate
from openwork.network.grid import Grid, find_grid
from openwork.network.inputs import Preparer
from openwork.network.memory import MemoryPlan, Sink, memory_plan, run_in_chunks
from openwork.network.padding import check_padding
from openwork.network.paths import copied
from openwork.network.run import Plan, Run, called, execute, make_plan, resolve_sources
from openwork.network.sites import SiteMap
from openwork.network.timeline import Timeline
from openwork.pictures import ImageFormat
from openwork.rule import Rule, checked
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network.replay.certificate import Suffixes
    from openwork.network.replay.prefix import Entries


class Network:
    """An opened network. The module stays the user's own object: never copied, wrapped or rewritten.

    Args:
        module: the module that is called.
        root: the module that hooks go to: `module` itself, or what ``torch.compile`` wrapped.
        name: what to call it in results.
        tokenizer: a tokenizer of transformers, or None.
        map: the sites.
        preparer: how inputs become arguments.
        example: the arguments of the dry run.
        timeline: what ran when in the dry run.
        images: what it wants of an image, or None if nothing says so.
    """

    def __init__(
        self,
        module: nn.Module,
        root: nn.Module,
        name: str,
        tokenizer: Any,
        map: SiteMap,
        preparer: Preparer,
        example: Mapping[str, Any],
        timeline: Timeline,
        images: ImageFormat | None = None,
    ):
        self.module, self.root, self.name, self.tokenizer = module, root, name, tokenizer
        self.map, self.preparer, self.example, self.timeline = map, preparer, example, timeline
        self.images = images
        self.grids: dict[tuple[str, tuple[int, int]], Grid] = {}
        self.plans: dict[Any, Plan] = {}
        self.padding: dict[str, bool] = {}
        self.replays: Suffixes | str | None = None
        self.entries: Entries | None = None
        self.modules = tuple(root.modules())

    # -- the map --

    @property
    def sites(self) -> dict[str, SiteInfo]:
        """Every certified or inert site with its certificate, in order of execution."""
        return self.map.sites

    @property
    def refused(self) -> dict[str, str]:
        """Sites that failed their certificate, with the reason."""
        return self.map.refused

    @property
    def n_blocks(self) -> int:
        """The number of blocks of the main tower: the text tower or decoder, or else the one that runs last."""
        numbers = [re.match(r"(.*?)blocks\.(\d+)\.", name) for name in self.sites]
        found = [(m[1], int(m[2])) for m in numbers if m]
        towers = {prefix for prefix, _ in found}
        main = next((p for p in ("", "decoder.") if p in towers), found[-1][0] if found else "")
        return max((number + 1 for prefix, number in found if prefix == main), default=0)

    @property
    def device(self) -> torch.device:
        """The device that inputs go to."""
        return self.preparer.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its floating parameters."""
        return next((p.dtype for p in self.root.parameters() if p.is_floating_point()), torch.float32)

    @property
    def causal(self) -> bool:
        """Whether a later token never changes an earlier row, as checked on this checkpoint."""
        return self.preparer.causal

    @property
    def vocabulary(self) -> int | None:
        """The number of token ids that it reads, or None if it reads no tokens."""
        return self.preparer.vocabulary

    def select(self, pattern: str | Site) -> list[str]:
        """The names of the sites that a pattern selects; see `SiteMap.resolve` for the errors."""
        return [str(site) for site in self.map.resolve(pattern)]

    def parts(self, site: str | Site) -> int:
        """How many heads, units or channels an index of this site may select."""
        return self.map.info(self.map.resolve(Site.parse(site).path)[0].path).parts

    # -- images --

    def grid(self, site: str | Site, image: tuple[int, int] | None = None) -> Grid:
        """Where the positions of a site lie in the image, and what each of them sees.

        Args:
            site: one site.
            image: (height, width) of the image; the size that the network's format or its dry run has unless given.

        Raises:
            BadInput: if the network reads no images, or not of this size, or if the places cannot be told.
        """
        return find_grid(self, self.map.resolve(Site.parse(site).path)[0].path, image)

    # -- text --

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.preparer.encode(text)

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """The text of token ids."""
        self._needs_tokenizer()
        return self.tokenizer.decode([int(i) for i in ids])

    def tokens(self, ids: Iterable[int] | Tensor) -> list[str]:
        """The text of each token."""
        self._needs_tokenizer()
        return [self.tokenizer.decode([int(i)]) for i in ids]

    def _needs_tokenizer(self) -> None:
        if self.tokenizer is None:
            raise BadInput("this network has no tokenizer; open it with tokenizer=")

    # -- running --

    def call(self, kwargs: Mapping[str, Any]) -> Any:
        """What the bare module returns for these arguments; where it writes into what it is given, it gets copies."""
        return self.module(**(copied(dict(kwargs)) if self.timeline.root.overwrites else kwargs))

    def run(
        self,
        inputs: Any,
        *,
        keep: str | Site | Iterable[str | Site] = (),
        edits: Edit | Iterable[Any] = (),
        sources: Mapping[str, Any] | None = None,
        surrogates: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        until: str | Site | None = None,
        grads: Callable[[Run], Tensor] | None = None,
        rules: Iterable[Rule] = (),
        to: Sink = None,
        memory: str | int | None = None,
    ) -> Run:
        """Run the network once, keeping and editing what is named.

        Args:
            inputs: text, texts, `Inputs`, token ids (batch, position), or keyword arguments of the module.
            keep: sites or patterns whose values to keep.
            edits: edits, applied in the order given at each site.
            sources: the runs that edits read: name -> `Run` that kept the site, or inputs to run.
            surrogates: the functions that `Substitute` edits name.
            until: stop at this site; the run has no logits then.
            grads: a function of the run that gives (batch,); gradients of its sum at every kept site.
            rules: what replaces derivatives in this call, such as `openwork.rule.RELP`; needs `grads`.
            to: where kept values go: ``"cpu"``, a folder, or a function ``(site, tensor) -> None``; None keeps them
                where they are.
            memory: a budget such as ``"2GiB"`` for kept values on the device; the batch runs in as many parts as that
                needs, and the values of the parts must go to ``to``.

        Returns:
            the run; unedited outputs are those of the bare module, bit for bit.

        Raises:
            UnknownName: for a site, source or surrogate that does not exist.
            SiteRefused: for a site that failed its certificate.
            EditMissed: for an edit or a keep that never fired.
            BadInput: for anything else that does not fit.
        """
        if not keep and not edits and until is None and grads is None and memory is None:
            prepared = self.preparer.prepare(inputs)
            check_padding(self, prepared)
            with torch.no_grad():
                return Run(called(self, prepared), {}, prepared.layout)
        ruled = checked(rules)
        if ruled and grads is None:
            raise BadInput("expected grads= with rules=: rules change gradients and nothing else")
        if memory is not None or to is not None:
            if grads is not None:
                raise BadInput("expected grads= without memory= or to=: gradients need all kept values where they are")
            return run_in_chunks(self, inputs, keep, edits, sources or {}, surrogates or {}, until, to, memory)
        prepared = self.preparer.prepare(inputs)
        check_padding(self, prepared)
        plan = make_plan(self, keep, edits, until, grads is not None, ruled)
        return execute(
            self, prepared, plan, resolve_sources(self, plan, prepared, sources or {}), surrogates or {}, grads
        )

    def generate(
        self, inputs: Any, *, max_new_tokens: int, edits: Edit | Iterable[Edit] = (), **options: Any
    ) -> Generation:
        """Generate, with edits at the prefill and at every cached step; see `openwork.network.generate.generate`."""
        return generate(self, inputs, max_new_tokens, edits, **options)

    def plan(self, inputs: Any, keep: str | Site | Iterable[str | Site]) -> MemoryPlan:
        """How many bytes keeping these sites takes, before anything runs."""
        return memory_plan(self, self.preparer.prepare(inputs).layout, keep)

    def __repr__(self) -> str:
        inert = sum(s.status == "inert" for s in self.sites.values())
        return (
            f"Network({self.name!r}: {self.n_blocks} blocks, {len(self.sites) - inert} certified, {inert} inert, "
            f"{len(self.refused)} refused sites)"
        )

    def __rich__(self) -> Any:
        from openwork.network.render import anatomy_tree

        return anatomy_tree(self)

    def _repr_html_(self) -> str:
        from openwork.network.render import anatomy_html

        return anatomy_html(self)
