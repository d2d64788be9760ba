"""Sphinx: the site of these pages, the methods' cards and the docstrings; ``make docs`` builds it.

The source folder is the repository's root, so that links between pages and to cards are the same
here and in a clone.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

project = 'mmseg_adm'
author = copyright = 'the mmseg_adm authors'
release = re.search(r"__version__ = '(.+)'", (ROOT / 'mmseg_adm/__init__.py').read_text())[1]
html_title = f'{project} {release}'

extensions = ['myst_nb', 'autoapi.extension', 'sphinx.ext.napoleon', 'sphinx_copybutton']
root_doc = 'docs/index'
include_patterns = ['docs/**.md', 'docs/**.ipynb', 'configs/*/README.md', 'benchmarks/*.md',
                    'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md']  # fmt: skip
exclude_patterns = ['.*', 'build', 'data', 'mmseg_adm', 'tests', 'work_dirs']

# Headings are linked to by GitHub's names for them.
myst_heading_anchors = 4
# A test runs the notebook; what it draws is committed with it.
nb_execution_mode = 'off'

# Docstrings are read, not imported: the site needs neither PyTorch nor MMSegmentation.
autoapi_dirs = [str(ROOT / 'mmseg_adm')]
autoapi_generate_api_docs = False
autoapi_add_toctree_entry = False
autoapi_python_class_content = 'both'
autoapi_options = ['members', 'show-inheritance']
napoleon_use_ivar = True  # autoapi lists the attributes of a data class itself
add_module_names = False
python_use_unqualified_type_names = True
suppress_warnings = ['autoapi.python_import_resolution']  # constants that a tuple assigns

# A reference that leads nowhere fails, but for what other packages define.
nitpicky = True
nitpick_ignore_regex = [(r'py:\w+', r'(?!mmseg_adm\.)(\w+\.)+\w+')]
ALIASES = ('Networks', 'Recorder', 'Result', 'Status', 'Weights')
nitpick_ignore = [('py:class', alias) for alias in ALIASES]

html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['site.css']
templates_path = ['_templates']
html_additional_pages = {'index': 'index.html'}


def find_by_export(app, env, node, contnode):
    """What is documented where a package exports it, and named without one or by another module.

    The one is inside the other: ``mmseg_adm.benchmark.plan.Row`` is ``mmseg_adm.benchmark.Row``.
    """
    if node.get('refdomain') != 'py':
        return None
    domain = env.get_domain('py')
    place, _, name = node['reftarget'].rpartition('.')
    for other in domain.objects:
        exporter, _, same = other.rpartition('.')
        shorter, longer = sorted((f'{place}.'.lstrip('.'), f'{exporter}.'), key=len)
        if same == name and longer.startswith(shorter):
            return domain.resolve_xref(
                env, node['refdoc'], app.builder, 'obj', other, node, contnode
            )
    return None


def leave_out_undocumented(app, what, name, item, skip, options):
    """What a class keeps for itself, and what its base describes."""
    return skip or (what == 'apiclass' and not item.docstring)


def setup(app):
    """Connect it."""
    app.connect('autodoc-skip-member', leave_out_undocumented)
    app.connect('missing-reference', find_by_export)
