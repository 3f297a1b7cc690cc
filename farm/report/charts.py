"""The figures of the report as plotly figures in plain dictionaries: no plotly object is built, the page draws them.

plotly reads a little HTML in names and labels, so every name that came from outside is escaped here too.
"""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from farm.report import figures, page
from farm.values.arrays import F64, I32
from farm.values.units import iso

Figure = dict[str, Any]

_FONT = {
    "family": "Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif",
    "size": 12,
    "color": page.MUTED,
}
_RISING = [[0.0, "#f3f6f9"], [0.5, "#9cbcda"], [1.0, "#174a80"]]
_AROUND_ZERO = [[0.0, "#b4483c"], [0.5, "#fbfbfb"], [1.0, "#1f5c99"]]
_LABELLED_PLACES_MAX = 140


def _layout(height: int, **more: Any) -> Figure:
    return {
        "height": height,
        "font": _FONT,
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "margin": {"l": 64, "r": 10, "t": 28, "b": 34},
        "hoverlabel": {"bgcolor": "#fff", "bordercolor": page.RULE, "font": {**_FONT, "color": page.INK}},
        **more,
    }


def curve(
    cash: float, day: I32, equity: F64, comparison: F64 | None, comparison_name: str, split_day: int | None
) -> Figure:
    """Return equity against the comparison, and the drawdown below, over a shared time axis.

    Shapes:  day, equity, comparison (n,). At most 300 points are drawn per curve; each keeps its own lows and highs.
    """
    data = []
    if comparison is not None:
        data.append(_line(day, comparison, comparison_name, page.OTHER, 1.3, "y"))
    data.append(_line(day, equity, "Strategy", page.ACCENT, 1.8, "y"))
    below = figures.drawdown(cash, equity)
    data.append(
        {
            **_line(day, below, "Drawdown", page.LOSS, 1.0, "y2"),
            "fill": "tozeroy",
            "fillcolor": "rgba(180,72,60,0.12)",
            "hovertemplate": "%{y:.1%}<extra>Drawdown</extra>",
            "showlegend": False,
        }
    )
    axis = {"gridcolor": page.RULE, "zeroline": False, "linecolor": page.RULE, "ticks": "", "automargin": True}
    layout = _layout(
        440,
        hovermode="x unified",
        legend={"orientation": "h", "x": 0, "y": 1.08, "xanchor": "left", "font": {"color": page.INK}},
        xaxis={"type": "date", "anchor": "y2", "showgrid": False, "linecolor": page.RULE, "hoverformat": "%Y-%m-%d"},
        yaxis={**axis, "domain": [0.32, 1.0], "tickformat": ",.0f"},
        yaxis2={**axis, "domain": [0.0, 0.25], "tickformat": ".0%", "rangemode": "tozero", "nticks": 4},
    )
    if split_day is not None and day[0] < split_day <= day[-1]:
        layout["shapes"], layout["annotations"] = _split(int(day[-1]), split_day)
    return {"data": data, "layout": layout}


def _line(day: I32, values: F64, name: str, colour: str, width: float, axis: str) -> Figure:
    kept = figures.thin(values)
    shown = html.escape(name)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": shown,
        "x": [iso(at) for at in day[kept].tolist()],
        "y": [round(value, 6) for value in values[kept].tolist()],
        "yaxis": axis,
        "line": {"color": colour, "width": width},
        "hovertemplate": f"%{{y:,.0f}}<extra>{shown}</extra>",
    }


def _split(last_day: int, split_day: int) -> tuple[list[Figure], list[Figure]]:
    """Return the shade over the out-of-sample sessions and its label."""
    start = iso(split_day)
    shade = {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": start,
        "x1": iso(last_day),
        "y0": 0,
        "y1": 1,
        "fillcolor": "rgba(31,92,153,0.045)",
        "line": {"width": 0},
        "layer": "below",
    }
    label = {
        "xref": "x",
        "yref": "paper",
        "x": start,
        "y": 1.0,
        "xanchor": "left",
        "yanchor": "top",
        "text": "out of sample",
        "showarrow": False,
        "xshift": 4,
        "font": {**_FONT, "size": 11},
    }
    return [shade], [label]


def parameter_figure(found: figures.ParameterMap, label: str, direction: str) -> Figure:
    """Return the objective over one parameter as a line, over two as a heat map, with the winner marked."""
    return _one(found, label) if not found.y else _two(found, label, direction)


def _ticks(values: tuple[object, ...]) -> list[str]:
    return [html.escape(f"{value:g}" if isinstance(value, float) else str(value)) for value in values]


def _axis(name: str, values: tuple[object, ...]) -> Figure:
    """Return a category axis: parameter values are labels, equally spaced."""
    return {
        "type": "category",
        "title": {"text": html.escape(name), "standoff": 8},
        "categoryorder": "array",
        "categoryarray": _ticks(values),
        "showgrid": False,
        "zeroline": False,
        "linecolor": page.RULE,
        "automargin": True,
        "ticks": "",
    }


def _one(found: figures.ParameterMap, label: str) -> Figure:
    x = _ticks(found.x)
    at = found.x.index(found.at[0])
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": found.value[0],
        "line": {"color": page.ACCENT, "width": 1.5},
        "marker": {"size": 5},
        "hovertemplate": f"{html.escape(found.x_name)} %{{x}}<br>%{{y:.4f}}<extra></extra>",
    }
    winner = {
        "type": "scatter",
        "mode": "markers",
        "x": [x[at]],
        "y": [found.value[0][at]],
        "marker": {"size": 13, "symbol": "circle-open", "color": page.INK, "line": {"width": 2}},
        "hoverinfo": "skip",
    }
    y_axis = {"title": {"text": html.escape(label)}, "gridcolor": page.RULE, "zeroline": False, "automargin": True}
    layout = _layout(300, showlegend=False, xaxis=_axis(found.x_name, found.x), yaxis=y_axis)
    return {"data": [line, winner], "layout": layout}


def _two(found: figures.ParameterMap, label: str, direction: str) -> Figure:
    x, y = _ticks(found.x), _ticks(found.y)
    known = [value for row in found.value for value in row if value is not None]
    around_zero = bool(known) and min(known) < 0.0 < max(known)
    heat: Figure = {
        "type": "heatmap",
        "x": x,
        "y": y,
        "z": found.value,
        "colorscale": _AROUND_ZERO if around_zero else _RISING,
        "reversescale": direction == "min",
        "xgap": 1,
        "ygap": 1,
        "colorbar": {
            "thickness": 10,
            "outlinewidth": 0,
            "len": 0.9,
            "title": {"text": html.escape(label), "side": "right"},
        },
        "hovertemplate": (
            f"{html.escape(found.x_name)} %{{x}} · {html.escape(found.y_name)} %{{y}}<br>%{{z:.4f}}<extra></extra>"
        ),
    }
    if around_zero:
        reach = float(np.max(np.abs(known)))
        heat |= {"zmin": -reach, "zmax": reach}
    if len(x) * len(y) <= _LABELLED_PLACES_MAX:
        heat |= {"texttemplate": "%{z:.2f}", "textfont": {"size": 11}}
    i, j = found.x.index(found.at[0]), found.y.index(found.at[1])
    outline = {
        "type": "rect",
        "xref": "x",
        "yref": "y",
        "x0": i - 0.5,
        "x1": i + 0.5,
        "y0": j - 0.5,
        "y1": j + 0.5,
        "line": {"color": page.INK, "width": 2},
        "fillcolor": "rgba(0,0,0,0)",
    }
    height = min(max(130 + 34 * len(y), 240), 560)
    layout = _layout(height, xaxis=_axis(found.x_name, found.x), yaxis=_axis(found.y_name, found.y), shapes=[outline])
    layout["margin"] = {"l": 64, "r": 10, "t": 10, "b": 44}
    return {"data": [heat], "layout": layout}
