"""What all viewers have in common: a still picture for pages on which no kernel runs."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets as widgets

from spine_lib.explore.overlays import Paint
from spine_lib.explore.picture import Picture
from spine_lib.explore.pointer import VIEWER_CLASS

if TYPE_CHECKING:  # matplotlib takes longer to import than a viewer to open
    from matplotlib.figure import Figure

STILL_WIDTH_PX = 640


class Viewer(widgets.VBox):
    """Hold pictures and controls, and draw a still of itself where no kernel runs.

    A code host or an exported page shows the still (`image/png`) in place of the controls.
    """

    def __init__(self, children: Sequence[widgets.Widget] = ()) -> None:
        super().__init__(children)
        self.add_class(VIEWER_CLASS)

    def pictures(self) -> Sequence[Picture]:
        """Return the pictures that are shown, from left to right."""
        return (self.picture,)

    def paints(self) -> Sequence[Paint]:
        """Return the paints of what is shown."""
        return ()

    @property
    def alt(self) -> str:
        """What is shown now, in words."""
        return " ".join(picture.alt for picture in self.pictures())

    def figure(self) -> Figure:
        """Draw what is shown now as a static figure, with marks, scale bars and legend."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        from spine_lib.explore import figures

        pictures, paints = self.pictures(), self.paints()
        widest = sum(one.rgb.shape[1] / one.rgb.shape[0] for one in pictures)
        width = min(4.6 * len(pictures), 9.5)
        words = textwrap.wrap(self.alt, int(width * 15))
        height = min(width / widest, 6) + 0.16 * len(words) + 0.5
        with mpl.rc_context({"font.size": 8}):
            figure = Figure(figsize=(width, height), layout="constrained")
            for axes, one in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures):
                if one.plane is None or one.pixel_mm is None:
                    axes.imshow(one.rgb, interpolation="nearest")
                    axes.set_axis_off()
                else:
                    figures.show_slice(axes, one.rgb, one.plane, one.pixel_mm)
            figure.suptitle("\n".join(words), fontsize=8)
            if paints:
                handles = figures.legend_handles(paints[:12])
                fits = 6 if width > 6 else 3  # entries side by side
                figure.legend(
                    handles=handles, loc="outside lower center", ncols=min(fits, len(paints))
                )
        return figure

    def still(self) -> bytes:
        """Return the static figure as a small PNG, some tens of kilobytes."""
        from PIL import Image

        from spine_lib.explore import figures

        figure = self.figure()
        dpi = STILL_WIDTH_PX / figure.get_figwidth()
        with Image.open(io.BytesIO(figures.encode_figure(figure, "png", dpi=dpi))) as image:
            few = image.convert("RGB").quantize(96)
        buffer = io.BytesIO()
        few.save(buffer, "png", optimize=True)
        return buffer.getvalue()

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        alt = self.alt
        data = {
            **(data or {}),
            "image/png": base64.b64encode(self.still()).decode("ascii"),
            "text/plain": alt,
        }
        return data, {**metadata, "image/png": {"alt": alt}}
