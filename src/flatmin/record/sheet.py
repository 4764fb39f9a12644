"""How a page looks: light and dark, on a screen, on a phone, on paper."""

SHEET = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --faint: #626262; --line: #e2e2e2;
  --link: #0b5a99; --code: #f4f4f4; --holds: #e0f2e9; --holds-ink: #00623f; --fails: #fbe3d8;
  --fails-ink: #963a00; --open: #efefef; --open-ink: #555; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e4e4e4; --faint: #a2a2a2; --line: #34373b; --link: #7ab8ef;
    --code: #25282c; --holds: #0f3d2b; --holds-ink: #9be3c3; --fails: #4a2413;
    --fails-ink: #ffb894; --open: #303338; --open-ink: #c4c4c4; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3.2rem 0 .6rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { margin: .6rem 0; max-width: 46rem; overflow-wrap: anywhere; }
p.figure { max-width: none; overflow-x: auto; }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus { text-decoration: underline; }
a.skip { position: absolute; left: -99rem; }
a.skip:focus { left: 1rem; top: 1rem; background: var(--paper); padding: .4rem; }
a.back { float: right; font-size: .8rem; margin-top: 4.6rem; }
img { display: block; max-width: 100%; height: auto; margin: 1rem auto; background: #fff; }
code { font: .88em ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  background: var(--code); border-radius: 3px; padding: .1em .3em; overflow-wrap: anywhere; }
.findings { font-size: 1.06rem; max-width: 48rem; padding-left: 1.4rem; }
.findings li { margin: .7rem 0; }
.caption { font-weight: 600; margin-top: 1.6rem; }
.table { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; min-width: 50%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; white-space: nowrap; }
td { overflow-wrap: break-word; }
td.number { font-variant-numeric: tabular-nums; }
.mark { display: inline-block; white-space: nowrap; border-radius: 1rem; padding: 0 .6rem;
  font-size: .8rem; font-weight: 600; }
.holds { background: var(--holds); color: var(--holds-ink); }
.fails { background: var(--fails); color: var(--fails-ink); }
.open { background: var(--open); color: var(--open-ink); }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--faint); font-size: .875rem; }
details.item { border-bottom: 1px solid var(--line); margin: 0; padding: .45rem 0; }
details.item > summary { color: var(--ink); font-size: 1rem; }
.title { margin-right: .4rem; }
.marks { white-space: nowrap; }
.first { display: block; margin: .15rem 0 0 1.1rem; max-width: 52rem; color: var(--faint);
  font-size: .875rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  main { padding: 1.2rem .9rem 3rem; }
  thead { position: absolute; left: -99rem; }
  table, tbody, tr, td { display: block; min-width: 0; }
  tr { display: flex; flex-direction: column; border: 1px solid var(--line); border-radius: .5rem;
    padding: .5rem .7rem; margin: .6rem 0; }
  td { border: 0; padding: .15rem 0; overflow-wrap: anywhere; }
  td::before { content: attr(data-label) " "; color: var(--faint); font-size: .78rem;
    display: block; }
  td.number::before { display: inline-block; width: 50%; }
  td.verdict { order: -1; }
  td.verdict::before { content: none; }
  td.verdict ~ td.verdict::before { content: attr(data-label) ": "; display: inline; }
  p.figure img { max-width: none; width: 52rem; }
  p.figure::before { content: "Swipe to see all of it, tap to see it alone."; color: var(--faint);
    font-size: .78rem; position: sticky; left: 0; }
}
@media print {
  @page { margin: 1.2cm; }
  html { font-size: 10px; }
  body { font-size: 7.2pt; line-height: 1.3; background: #fff; color: #000; }
  main { max-width: none; padding: 0; }
  p, li { max-width: none; margin: .3rem 0; }
  details:not([open]):not(.item), a.back, a.skip { display: none; }
  img { max-height: 6.1cm; margin: .3rem auto; }
  h2 { margin-top: .8rem; padding-top: .4rem; }
  th, td { padding: .1rem .4rem; }
  tr, img { break-inside: avoid; }
  details.item { padding: .1rem 0; }
  .first { max-width: none; font-size: 7pt; line-height: 1.25; }
}
"""
