# The VM lab. TOWLINE_LAB, TOWLINE_CACHE and TOWLINE_LAB_PORT move its state, cache and ports.
.PHONY: lab lab-down

lab: $(VENV_READY) ## Four virtual machines: provision, write, kill, catch up, verify, show
	python -m tools.lab tour

lab-down: $(VENV_READY) ## End the lab's machines and delete their state
	python -m tools.lab down

bench:: $(VENV_READY)
	if [ -e "$${TOWLINE_LAB:-build/lab}/ssh_config" ]; then
	    python -m bench.vms
	else
	    echo "bench: the part in the VMs needs a lab that is up: make lab"
	fi
