# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
VENV_OPENMMLAB ?= .venv-openmmlab
VENV_DOCS ?= .venv-docs
# A file stays in one process: what its tests share is made once. In which order: tests/conftest.py.
TWO = -n 2 --dist loadfile --no-loadscope-reorder
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(TWO)
# What setup.py asks for, said before pip refuses to fill the environment.
FITS = $(PYTHON) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or sys.exit("mmseg_adm \
    needs Python 3.10 to 3.13, and $(PYTHON) is " + sys.version.split()[0] + ". Name another: make \
    ... PYTHON=python3.12")'

.PHONY: demo docs test quick test-slow test-openmmlab lint clean

demo: $(VENV)/installed
	$(VENV)/bin/mmseg-adm demo

# The site, in an environment without PyTorch; a link or a reference that leads nowhere fails. Anew each
# time: Sphinx does not see that a page is made of a docstring that has changed.
docs: $(VENV_DOCS)/installed
	$(VENV_DOCS)/bin/sphinx-build --fail-on-warning --keep-going --fresh-env -q -c docs . \
	    build/site
	@echo "wrote build/site/index.html"

# Types take as long as a tenth of the tests, and are checked beside them.
test: $(VENV)/installed
	$(MAKE) --jobs 2 lint quick

quick: $(VENV)/installed
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/installed
	$(PYTEST) -m slow

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The core of the suite with the upstream distribution, in an environment of its own. What is slow
# there is what launches processes and exports graphs, whichever distribution is beneath.
test-openmmlab: $(VENV_OPENMMLAB)/installed
	OMP_NUM_THREADS=1 $(VENV_OPENMMLAB)/bin/python -m pytest $(TWO) \
	    -m "core and not slow"

$(VENV)/installed: setup.py constraints.txt mmseg_adm/stack.py
	@$(FITS)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -c constraints.txt -e ".[onedl,test]"
	touch $@

# mmcv-lite and a stand-in for mmcv's compiled operators, which take an hour to build.
$(VENV_OPENMMLAB)/installed: setup.py constraints.txt mmseg_adm/stack.py tests/stand_ins/mmcv_ext.py
	@$(FITS)
	$(PYTHON) -m venv $(VENV_OPENMMLAB)
	$(VENV_OPENMMLAB)/bin/python -m pip install -c constraints.txt -e ".[test]" \
	    mmengine==0.10.7 mmcv-lite==2.1.0 mmsegmentation==1.2.2 ftfy regex
	cp tests/stand_ins/mmcv_ext.py "$$($(VENV_OPENMMLAB)/bin/python -c \
	    'import importlib.util as u; print(u.find_spec("mmcv").submodule_search_locations[0])')/_ext.py"
	touch $@

# The extra alone: the package would bring PyTorch.
$(VENV_DOCS)/installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV_DOCS)
	$(VENV_DOCS)/bin/python -m pip install -c constraints.txt \
	    sphinx myst-nb sphinx-autoapi sphinx-copybutton furo
	touch $@

clean:
	rm -rf $(VENV) $(VENV_OPENMMLAB) $(VENV_DOCS) build *.egg-info
