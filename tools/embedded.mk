# The embedded lab: three sites on plain files, no root, no VM.

demo: $(VENV_READY) ## Three sites on files, real clients, the primary killed: identical at the end
	python -m replicator.embedded.demo --folder build/demo
