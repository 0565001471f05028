"""Sphinx configuration of the documentation: ``make docs``."""

from importlib.metadata import version as version_of

project = "flask_sse_emitters"
author = "the authors of flask_sse_emitters"
release = version = version_of("flask-sse-emitters")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
highlight_language = "none"  # blocks without a language are commands
nitpicky = True

html_theme = "furo"
html_title = "flask_sse_emitters"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_copy_source = False
pygments_dark_style = "github-dark"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88

# Names that other projects document, or that are not part of the API, have no page here.
nitpick_ignore_regex = [
    ("py:.*", r"(blinker|collections|contextlib|datetime|flask|gevent|prometheus_client|types|typing|werkzeug)\..*"),
    ("py:.*", r"BrokerState|Flask|HeadersValue|Response|SqlSession|flask_sse_emitters(\.\w+)+\.(_\w+|T)"),
]
