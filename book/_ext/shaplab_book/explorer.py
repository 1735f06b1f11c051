"""CoalitionExplorer: a game that readers play with in a page, offline, by mouse or keyboard.

The object tabulates the game once; its HTML carries the table and a short script, so a static page
needs neither a kernel nor a network.

Chapter: foundations/exact
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shaplab._validation import check_int, check_names, fail, shorten
from shaplab.foundations.exact import shapley_values
from shaplab.foundations.games import TableGame, check_players

__all__ = ["CoalitionExplorer"]

_STYLE = """
.shaplab-explorer{border:1px solid currentColor;border-radius:.5rem;padding:.8rem 1rem;margin:1rem 0;max-width:100%;
 overflow-wrap:anywhere;color:inherit;background:transparent}
.shaplab-explorer h4{margin:.2rem 0 .5rem;font-size:1rem}
.shaplab-explorer .choices{display:flex;flex-wrap:wrap;gap:.4rem;margin:.4rem 0}
.shaplab-explorer button{font:inherit;color:inherit;background:transparent;border:2px solid currentColor;
 border-radius:.4rem;padding:.35rem .7rem;min-height:2.4rem;max-width:100%;cursor:pointer}
.shaplab-explorer button[aria-pressed=true]{background:#0b5cad;border-color:#0b5cad;color:#fff}
.shaplab-explorer button:focus-visible{outline:3px solid #d97706;outline-offset:2px}
.shaplab-explorer p{margin:.4rem 0}
.shaplab-explorer table{width:100%;border-collapse:collapse;margin:.4rem 0;table-layout:fixed;display:table}
.shaplab-explorer th,.shaplab-explorer td{text-align:left;padding:.25rem .3rem;vertical-align:top;
 border-bottom:1px solid #8888;background:transparent;color:inherit;font-size:.9rem}
.shaplab-explorer .bar{display:block;height:.45rem;margin-top:.15rem;border-radius:.2rem;background:#c2500c}
.shaplab-explorer .bar.minus{background:#2166ac}
"""

_SCRIPT = """
(function(){
const root=document.getElementById(ROOT), data=JSON.parse(root.querySelector("script").textContent);
const n=data.names.length, v=data.values, part=name=>root.querySelector('[data-role="'+name+'"]');
let inside=0, state=data.seed>>>0, order=[], done=0, runs=0, sum=new Array(n).fill(0), last=new Array(n).fill(null);
const decimals={maximumFractionDigits:data.digits,minimumFractionDigits:0};
const show=x=>(x<0?"−":"")+data.prefix+Math.abs(x).toLocaleString("en-US",decimals)+data.suffix;
const draw=()=>{state=(Math.imul(state,1664525)+1013904223)>>>0; return state/4294967296;};
const has=i=>(inside>>i)&1, change=i=>has(i)?v[inside]-v[inside^(1<<i)]:v[inside|(1<<i)]-v[inside];
const top=Math.max(1e-300,...data.shapley.map(Math.abs),...v.map((x,s)=>{let most=0;
  for(let i=0;i<n;i++) if(!((s>>i)&1)) most=Math.max(most,Math.abs(v[s|(1<<i)]-x)); return most;}));
function cell(td,x){td.textContent=x===null?"–":show(x); if(x===null) return; const bar=document.createElement("span");
  bar.className="bar"+(x<0?" minus":""); bar.style.width=Math.max(1,100*Math.abs(x)/top)+"%"; td.append(bar);}
function render(){
  root.querySelectorAll("button[data-player]").forEach((b,i)=>b.setAttribute("aria-pressed",has(i)?"true":"false"));
  part("value").textContent=show(v[inside]);
  part("members").textContent=data.names.filter((_,i)=>has(i)).join(", ")||"nobody";
  root.querySelectorAll("tbody tr").forEach((tr,i)=>{cell(tr.children[1],change(i));
    cell(tr.children[2],runs?sum[i]/runs:null);});
  const arrived=(p,k)=>k<done?data.names[p]+" "+(last[p]<0?"":"+")+show(last[p])
    :(k===done?"next: ":"")+data.names[p];
  part("order").textContent=order.length?order.map(arrived).join(" → "):"no ordering yet";
  part("runs").textContent=runs+(runs===1?" ordering":" orderings")+" finished";
}
function shuffle(){order=[...Array(n).keys()]; for(let i=n-1;i>0;i--){const j=Math.floor(draw()*(i+1));
  [order[i],order[j]]=[order[j],order[i]];} done=0; inside=0; last.fill(null);}
function step(){ if(!order.length||done===n) shuffle(); const p=order[done], before=v[inside]; inside|=1<<p;
  last[p]=v[inside]-before; done++; if(done===n){for(let i=0;i<n;i++) sum[i]+=last[i]; runs++;} }
function toggle(i){inside^=1<<i; order=[]; done=0; render();}
root.querySelectorAll("button[data-player]").forEach((b,i)=>b.addEventListener("click",()=>toggle(i)));
const finish=()=>{do step(); while(done<n);};
const actions={step:step, finish:finish, many:()=>{for(let k=0;k<100;k++) finish();},
  reset:()=>{inside=0; order=[]; done=0; runs=0; sum.fill(0); state=data.seed>>>0;}};
root.querySelectorAll("button[data-action]").forEach(b=>
  b.addEventListener("click",()=>{actions[b.dataset.action](); render();}));
render();
})();
"""


class CoalitionExplorer:
    """A game to play with: switch players on and off, step through orderings, watch the mean
    settle.

    Parameters
    ----------
    game : a :class:`shaplab.TableGame`, or any callable on boolean coalitions ``(m, n)`` with
        scalar payoff.
    names : names of the players; taken from the game when it has them.
    unit : text before (``"$"``) or after (any other) each number.
    title : heading of the box.
    digits : decimals shown.
    seed : int, the orderings that the page draws.

    Notes
    -----
    Up to 10 players, so the page carries at most 1,024 numbers. The HTML is the same at every run:
    two equal explorers on one page need different titles or seeds.

    Examples
    --------
    >>> from shaplab.foundations.games import company_game
    >>> CoalitionExplorer(company_game(), unit="$")
    <CoalitionExplorer of 5 players: CEO, Ann, Bob, Cleo, Dan>
    """

    def __init__(
        self,
        game: Callable[[np.ndarray], Any],
        names: Sequence[str] | None = None,
        *,
        unit: str = "",
        title: str = "Explore the game",
        digits: int = 2,
        seed: int = 1,
    ) -> None:
        found: Any = names if names is not None else getattr(game, "names", None)
        if not hasattr(found, "__len__"):
            fail("names", "the players' names", repr(found), "Pass names=[...]", TypeError)
        n = check_players(len(found), maximum=10)
        self.names = check_names(found, n, "names") or ()
        self.table = TableGame.of(game, n).table
        if self.table.ndim != 1:
            fail(
                "game",
                "a scalar payoff",
                f"payoff of shape {self.table.shape[1:]}",
                "Select one row and output",
            )
        self.shapley = shapley_values(TableGame(self.table), n)
        self.unit, self.title = shorten(unit, 20), str(title)
        self.digits = check_int(digits, "digits", minimum=0, maximum=12)
        self.seed = check_int(seed, "seed", minimum=0, maximum=2**32 - 1)

    def __repr__(self) -> str:
        names = shorten(", ".join(self.names), 120)
        return f"<CoalitionExplorer of {len(self.names)} players: {names}>"

    def _show(self, value: float) -> str:
        text = f"{value:,.{self.digits}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        text = "0" if text == "-0" else text
        sign, text = ("−", text[1:]) if text.startswith("-") else ("", text)
        return f"{sign}${text}" if self.unit == "$" else f"{sign}{text} {self.unit}".rstrip()

    def _repr_html_(self) -> str:
        names = [shorten(name, 40) for name in self.names]
        rounded = self.digits + 3
        data = {
            "names": names,
            "values": [round(float(x), rounded) for x in self.table],
            "shapley": [round(float(x), rounded) for x in self.shapley],
            "digits": self.digits,
            "seed": self.seed,
            "prefix": "$" if self.unit == "$" else "",
            "suffix": "" if self.unit in ("", "$") else " " + self.unit,
        }
        payload = (
            json.dumps(data, ensure_ascii=True).replace("<", "\\u003c").replace("&", "\\u0026")
        )
        identity = "shaplab-" + hashlib.sha256((self.title + payload).encode()).hexdigest()[:12]
        safe = [html.escape(name) for name in names]
        buttons = "".join(
            f'<button type="button" data-player="{i}" aria-pressed="false">{name}</button>'
            for i, name in enumerate(safe)
        )
        rows = "".join(
            f'<tr><th scope="row">{name}</th><td>–</td><td>–</td><td>{html.escape(self._show(phi))}</td></tr>'
            for name, phi in zip(safe, self.shapley, strict=True)
        )
        title = html.escape(shorten(self.title, 100))
        actions = "".join(
            f'<button type="button" data-action="{key}">{label}</button>'
            for key, label in (
                ("step", "Next player"),
                ("finish", "Finish ordering"),
                ("many", "100 orderings"),
                ("reset", "Start over"),
            )
        )
        return f"""<style>{_STYLE}</style>
<section class="shaplab-explorer" id="{identity}" aria-label="{title}">
<script type="application/json">{payload}</script>
<p><strong>{title}</strong></p>
<p>Switch players on and off. Who is in decides what the coalition is worth.</p>
<div class="choices" role="group" aria-label="Players">{buttons}</div>
<p aria-live="polite">In: <span data-role="members">nobody</span>. Worth
<strong data-role="value">{html.escape(self._show(float(self.table[0])))}</strong>.</p>
<p>Or let them arrive one by one, in a random order.</p>
<div class="choices" role="group" aria-label="Orderings">{actions}</div>
<p aria-live="polite"><span data-role="order">no ordering yet</span>
(<span data-role="runs">0 orderings finished</span>)</p>
<table><thead><tr><th scope="col">player</th><th scope="col">adds to the others in</th><th scope="col">mean so far</th>
<th scope="col">Shapley value</th></tr></thead><tbody>{rows}</tbody></table>
</section><script>{_SCRIPT.replace("ROOT", json.dumps(identity))}</script>"""
