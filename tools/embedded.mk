# The embedded lab: three sites on plain files, no root, no VM.

TOPOLOGY ?= async

demo: $(VENV_READY) ## Three sites on files, real clients, a killed (TOPOLOGY=async|bunker|sync)
	python -m replicator.embedded.demo --folder build/demo --topology $(TOPOLOGY)

bench:: $(VENV_READY) ## Side by side with qemu-nbd, plain writes and dd; table and build/bench.json
	python -m bench.embedded
	python -m bench.quiet --json build/bench-quiet.json
