"""The docs site as a reader meets it: in a browser, at the width of a desktop and of a phone.

It looks at what `python tools/docs.py` has built, served below a path as on its host, and needs a Chromium.
"""
import json, posixpath, re, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from browser import browser, program

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT/'_docs'
BASE = '/conkernelclient/'  # The site must not need to be at the root of its host
SIZES = dict(desktop=dict(width=1280, height=800), phone=dict(width=390, height=844, phone=True))

pytestmark = [pytest.mark.skipif(not program(), reason='NO CHROMIUM: the docs site is not looked at (Debian: apt-get install chromium)'),
              pytest.mark.skipif(not (DOCS/'index.html').exists(), reason='NO DOCS: build them with python tools/docs.py')]


class Handler(SimpleHTTPRequestHandler):
    "Serves a folder below `BASE`, and nothing elsewhere."
    def translate_path(self, path):
        if not path.startswith(BASE): return str(DOCS/'there is nothing here')
        return super().translate_path('/' + path[len(BASE):])
    def log_message(self, *args): pass


@pytest.fixture(scope='module')
def serve():
    "A function that serves a folder and gives the address."
    servers = []
    def start(folder):
        server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f'http://127.0.0.1:{server.server_port}{BASE}'
    yield start
    for o in servers:
        o.shutdown()
        o.server_close()


@pytest.fixture(scope='module')
def site(serve): return serve(DOCS)


@pytest.fixture(scope='module')
def chromium():
    with browser() as res: yield res


def pages(): return sorted(o.relative_to(DOCS).as_posix() for o in DOCS.rglob('*.html') if 'site_libs' not in o.parts)


def foreign(tab, site): return [o for o in tab.urls if not o.startswith((site, 'data:', 'about:', 'blob:'))]


LOOK = '''({
    title: document.title,
    description: document.querySelector('meta[property="og:description"]')?.content ?? null,
    heading: document.querySelector('main h1')?.textContent.trim() ?? null,
    images: [...document.images].filter(o => !o.complete || !o.naturalWidth).map(o => o.src),
    alts: [...document.querySelectorAll('main img')].filter(o => !o.alt).map(o => o.src),
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    cut: [...document.querySelectorAll('main *')].filter(o => {  // beyond the edge, with nothing to scroll it by
        if (!o.checkVisibility() || o.getBoundingClientRect().right <= document.documentElement.clientWidth + 1) return false
        for (let e = o; e && e.matches('main *'); e = e.parentElement) if (['auto', 'scroll'].includes(getComputedStyle(e).overflowX)) return false
        return true }).map(o => o.outerHTML.slice(0, 80)),
    clipped: [...document.querySelectorAll('body *')].filter(o => o.checkVisibility() && o.scrollWidth > o.clientWidth + 1 && o.textContent.trim()
        && ['hidden', 'clip'].includes(getComputedStyle(o).overflowX) && !o.matches('#quarto-content, .visually-hidden')).map(o => o.outerHTML.slice(0, 80)),
    broken: [...document.querySelectorAll('main td:first-child > code:only-child')].filter(o => o.getClientRects().length > 1).map(o => o.textContent),
    unstyled: getComputedStyle(document.querySelector('main')).display === 'inline'
})'''


CONTRAST = """(() => {  // text that is too faint for its ground (WCAG 2.1 AA), each kind once
    const rgba = o => { const m = o.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m }
    const over = ([r, g, b, a], [R, G, B]) => [r*a + R*(1 - a), g*a + G*(1 - a), b*a + B*(1 - a), 1]
    const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .04045 ? v/12.92 : ((v + .055)/1.055)**2.4).reduce((n, v, i) => n + v*[.2126, .7152, .0722][i], 0)
    const known = new Map(), kinds = new Map()
    const ground = el => {
        if (!el) return getComputedStyle(document.documentElement).colorScheme === 'dark' ? [18, 18, 18, 1] : [255, 255, 255, 1]
        if (!known.has(el)) known.set(el, over(rgba(getComputedStyle(el).backgroundColor), ground(el.parentElement)))
        return known.get(el) }
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (walk.nextNode()) {
        const el = walk.currentNode.parentElement
        if (!walk.currentNode.data.trim() || el.matches('script, style, noscript, svg *')) continue
        const style = getComputedStyle(el), size = parseFloat(style.fontSize), key = [style.color, ground(el), size, style.fontWeight].join('|')
        if (kinds.has(key) || !el.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue
        const [low, high] = [light(over(rgba(style.color), ground(el))), light(ground(el))].sort((a, b) => a - b)
        const ratio = (high + .05)/(low + .05), wanted = size >= 24 || size >= 18.66 && style.fontWeight >= 700 ? 3 : 4.5
        kinds.set(key, ratio < wanted ? `${ratio.toFixed(1)}: ${walk.currentNode.data.trim().slice(0, 40)}` : '')
    }
    return [...kinds.values()].filter(o => o) })()"""


DARK = 'document.documentElement.classList.contains("quarto-dark")'


def faults(look: dict) -> list[str]:
    "What a reader would not like in the `look` of a page."
    wanted = dict(images='not shown', alts='without words', cut='out of reach', clipped='cut off', broken='a name is broken')
    res = [f'{text}: {look[key][:3]}' for key, text in wanted.items() if look[key]]
    if not look['heading'] or look['heading'] not in look['title']: res.append(f"title {look['title']!r}, heading {look['heading']!r}")
    if not look['description']: res.append('no description for sharing')
    if look['wide'] > 0: res.append(f"{look['wide']} pixels wider than the screen")
    if look['unstyled']: res.append('without style')
    return res


STILL = 'document.head.append(Object.assign(document.createElement("style"), {textContent: "* { transition: none !important }"}))'


@pytest.mark.parametrize('size', SIZES)
def test_every_page(chromium, site, size):
    found = []
    with chromium.tab(**SIZES[size]) as tab:
        for page in pages():
            tab.open(site + page)  # in the mode in which the last page was left: the site remembers
            tab.js(STILL)
            # Pictures that are loaded when they are scrolled to, too
            tab.js('document.images.length && [...document.images].forEach(o => o.loading = "eager")')
            tab.until('[...document.images].every(o => o.complete)')
            dark = tab.js(DARK)
            look = [*faults(tab.js(LOOK)), *(f'faint: {o}' for o in tab.js(CONTRAST))]
            tab.js('window.smalldocsToggleScheme()')
            tab.until(f'{DARK} !== {json.dumps(dark)}')
            look += [f'faint in the other mode: {o}' for o in tab.js(CONTRAST)]
            look += [*tab.problems, *(f'asks elsewhere: {o}' for o in foreign(tab, site))]
            found += [f'{page}, {"dark" if dark else "light"}: {o}' for o in look]
            tab.problems.clear(), tab.urls.clear()
    assert not found, '\n'.join(found)
    assert len(pages()) > 10


def test_what_is_wrong_is_seen(chromium, serve, tmp_path):
    (tmp_path/'bad.html').write_text('''<!doctype html><title>Bad</title><link rel="icon" href="data:,"><main><h1>Bad</h1>
        <p style="width: 2000px">wide</p><div style="overflow-x: auto"><p style="width: 2000px">scrolls</p></div><img src="missing.png"><script src="missing.js"></script>
        <p style="color: #aaa">faint</p><p style="overflow: hidden; width: 3em; white-space: nowrap">is cut off</p>
        <table style="width: 1px"><td><code>a name</code></table>
        <script>console.error('said'); setTimeout(() => { throw new Error('thrown') })</script></main>''')
    site = serve(tmp_path)
    with chromium.tab(**SIZES['phone']) as tab:
        tab.open(site + 'bad.html')
        look = tab.js(LOOK)
        faint = tab.js(CONTRAST)
        problems = '\n'.join(tab.problems)
    assert faint == ['2.3: faint'] and [o[-11:] for o in look['clipped']] == ['cut off</p>'] and look['broken'] == ['a name']
    assert look['wide'] > 0 and [o[-8:] for o in look['cut']] == ['wide</p>'] and look['images'] == [site + 'missing.png'] == look['alts']
    assert 'console: said' in problems and 'thrown' in problems and problems.count('404') >= 2


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('words, page', [('ConKernelManager', 'core.html'), ('subshell', 'cells/subshell.html'), ('tool loop', 'tutorials/tool_loop.html')])
def test_search(chromium, site, size, words, page):
    with chromium.tab(**SIZES[size]) as tab:
        tab.open(site + 'tutorials/first_steps.html')
        tab.click('#quarto-search input')
        tab.until('document.activeElement.matches("#quarto-search input")')
        tab.write(words)
        tab.until('document.querySelectorAll(".search-result").length > 0')
        tab.until(f'[...document.querySelectorAll(".search-result")].some(o => new URL(o.href).pathname.endsWith("/{page}"))')
        tab.follow(f'.search-result[href*="{page}"]')
        assert tab.js('location.pathname') == BASE + page
        assert not tab.problems and not foreign(tab, site)


def test_search_finds_a_method_by_its_name(chromium, site):
    with chromium.tab() as tab:
        tab.open(site + 'index.html')
        for words, first in ('kc.run', 'core.html#conkernelclient.run'), ('interrupt', 'core.html#conkernelclient.interrupt'), ('k.start(', 'sync.html#kernel.start'):
            tab.js('document.querySelector("#quarto-search input").value = ""')
            tab.click('#quarto-search input')
            tab.write(words)
            tab.until(f'document.querySelector(".search-result")?.getAttribute("href").endsWith({first!r})')


def test_the_reference_is_one_click_away(chromium, site):
    heights = """[...document.querySelectorAll('main section')].map(o =>
        [o.id, o.getBoundingClientRect().height - [...o.querySelectorAll('section')].reduce((n, x) => n + x.getBoundingClientRect().height, 0)])"""
    with chromium.tab(width=1280, height=1000) as tab:
        tab.open(site + 'index.html')
        tab.follow('.navbar a[href="api.html"]')
        assert tab.js('document.querySelector("main a[href=\'core.html#conkernelclient.run\']").getBoundingClientRect().bottom') < 1000
        assert [o for o in tab.js(heights) if o[1] > 1000 - 60] == []  # a class in one screenful, below the navbar
        tab.open(site + 'core.html')
        names = tab.js('[...document.querySelectorAll("#TOC a")].map(o => o.textContent)')
        assert '.run' in names and '.restart' in names and 'ConKernelClient' in names


def test_search_without_a_result_and_by_keys(chromium, site):
    with chromium.tab() as tab:
        tab.open(site + 'index.html')
        tab.press('/')
        tab.until('document.activeElement.matches("#quarto-search input")')
        tab.write('qqqqzzzz')
        tab.until('document.querySelector(".search-none")?.checkVisibility()')
        tab.press('Escape')
        tab.until('!document.querySelector(".search-none").checkVisibility()')


def test_next_and_previous_lead_through_all_pages(chromium, site):
    seen = ['index.html']
    while next := re.search(r'<div class="nav-page nav-page-next">\s*<a href="([^"#]+)"', (DOCS/seen[-1]).read_text(encoding='utf-8')):
        seen.append(posixpath.normpath(posixpath.join(posixpath.dirname(seen[-1]), next[1])))
        assert len(seen) <= len(pages())
    assert sorted(seen) == pages()
    with chromium.tab() as tab:
        tab.open(site + 'index.html')
        for o in seen[1:4]:
            tab.follow('.nav-page-next a')
            assert tab.js('location.pathname') == BASE + o
        tab.follow('.nav-page-previous a')
        assert tab.js('location.pathname') == BASE + seen[2]
        assert not tab.problems


@pytest.mark.parametrize('size', SIZES)
def test_sidebar_and_navbar(chromium, site, size):
    with chromium.tab(**SIZES[size]) as tab:
        tab.open(site + 'index.html')
        links = tab.js('[...document.querySelectorAll("#quarto-sidebar a[href]")].map(o => o.getAttribute("href"))')
        assert sorted(links) == pages()
        if size == 'phone':
            assert tab.js('document.querySelector("#quarto-sidebar").getBoundingClientRect().right') <= 0
            tab.click('.quarto-btn-toggle')
        tab.follow('#quarto-sidebar a[href="tutorials/many_cells.html"]')
        assert tab.js('document.querySelector("main h1").textContent.trim()') == 'Many cells at once'
        if size == 'phone': tab.click('.quarto-btn-toggle')
        tab.follow(f'{"#quarto-sidebar" if size == "phone" else ".navbar"} a[href="../promises.html"]')
        assert tab.js('location.pathname') == BASE + 'promises.html'
        if size == 'phone': assert not tab.problems
        else:
            tab.follow('.navbar-brand')
            assert tab.js('location.pathname') in (BASE, BASE + 'index.html')


DARKNESS = '''(() => {
    const light = o => { const [r, g, b] = getComputedStyle(o).getPropertyValue("%s").match(/[0-9.]+/g).map(Number); return (r + g + b)/765 }
    return light(document.%s) })()'''


@pytest.mark.parametrize('dark', [False, True])
def test_dark_and_light(chromium, site, dark):
    def paper(): return tab.js(DARKNESS % ('background-color', 'body')) < .5
    with chromium.tab(dark=dark) as tab:
        tab.open(site + 'core.html')
        assert paper() == dark
        ink = tab.js(DARKNESS % ('color', 'querySelector("main p")'))
        assert (ink > .5) == dark
        tab.click('.quarto-color-scheme-toggle')
        tab.until(f'{DARKNESS % ("background-color", "body")} {">" if dark else "<"} .5')
        tab.open(site + 'cells/run.html')  # which remembers
        assert paper() != dark
        assert not tab.problems


def test_the_site_says_what_it_is(chromium, site):
    version = re.search(r'^version = (.*)$', (ROOT/'settings.ini').read_text(encoding='utf-8'), flags=re.M)[1]
    with chromium.tab(dark=True) as tab:
        tab.open(site + 'index.html')
        assert version in tab.js('document.querySelector(".navbar").textContent') and version in tab.js('document.querySelector("footer").textContent')
        assert tab.js('document.querySelector(".navbar-logo").naturalWidth') > 0
        links = tab.js('[...document.querySelectorAll("footer a")].map(o => o.href)')
        assert any(o.endswith('/conkernelclient') for o in links) and any(o.endswith('/issues') for o in links)
        white = """[...document.querySelectorAll('*')].filter(o => o.checkVisibility() && getComputedStyle(o).backgroundColor === 'rgb(255, 255, 255)').map(o => o.tagName)"""
        assert tab.js(white) == [] and tab.js('getComputedStyle(document.documentElement).colorScheme') == 'dark'


def test_code_can_be_copied(chromium, site):
    with chromium.tab() as tab:
        chromium.call('Browser.grantPermissions', permissions=['clipboardReadWrite', 'clipboardSanitizedWrite'])
        tab.open(site + 'tutorials/first_steps.html')
        tab.js('navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve() }')
        tab.js('document.querySelectorAll(".code-copy-button").forEach(o => o.style.opacity = 1)')
        tab.click('.code-copy-button')
        assert tab.until('window.copied').strip() == 'import asyncio\nfrom conkernelclient import *'


@pytest.mark.parametrize('anchor', ['core.html#conkernelclient', 'core.html#conkernelmanager', 'core.html#conkernelclient.run', 'engine/request.html#request.done'])
def test_public_addresses(chromium, site, anchor):
    with chromium.tab() as tab:
        tab.open(site + anchor)
        name = anchor.split('#')[1]
        top = f'document.getElementById({name!r}).getBoundingClientRect().top'
        tab.until(f'0 <= {top} && {top} < 200')  # it scrolls there smoothly


def test_for_language_models(chromium, site):
    index = (DOCS/'llms.txt').read_text(encoding='utf-8')
    copies = re.findall(r'^- \[.+\]\(https://[^)]+?/conkernelclient/(.+)\.llms\.md\): .+$', index, flags=re.M)
    for o in copies:
        text = (DOCS/f'{o}.llms.md').read_text(encoding='utf-8')
        assert len(text) > 100 and 'AUTOGENERATED' not in text
    with chromium.tab() as tab:  # as people read them
        tab.open(site + 'index.html')
        links = tab.js('[...document.querySelectorAll("#quarto-sidebar a[href]")].map(o => o.getAttribute("href"))')
    assert [f'{o}.html' for o in copies] == links


def test_what_is_shown_where_a_page_is_shared():
    for page in pages():
        html = (DOCS/page).read_text(encoding='utf-8')
        tags = dict(re.findall(r'<meta (?:property|name)="([\w:]+)" content="([^"]*)"', html))
        assert all(tags.get(o) for o in ('description', 'og:title', 'og:description', 'og:site_name', 'twitter:card')), page
        assert tags['og:url'].endswith(BASE + page.removesuffix('index.html')) and f'<link rel="canonical" href="{tags["og:url"]}">' in html
        address, _, picture = tags['og:image'].partition(BASE)
        assert address.startswith('https://') and (DOCS/picture).read_bytes().startswith(b'\x89PNG')


def test_promises_lead_to_their_tests():
    text = (ROOT/'nbs'/'promises.ipynb').read_text(encoding='utf-8')
    named = re.findall(r'`(test_\w+\.py)(?:::(\w+))?`', text)
    links = re.findall(r'<a href="[^"]*/tests/(test_\w+\.py)(?:#L(\d+))?"', (DOCS/'promises.html').read_text(encoding='utf-8'))
    assert len(named) > 20 and [o for o,_ in links] == [o for o,_ in named]
    for (file, name), (_, line) in zip(named, links):
        if name: assert re.match(rf'(async )?def {name}\(', (ROOT/'tests'/file).read_text(encoding='utf-8').splitlines()[int(line)-1])
