# The VM lab. TOWLINE_LAB, TOWLINE_CACHE and TOWLINE_LAB_PORT move its state, cache and ports.
.PHONY: lab lab-down

lab: $(VENV_READY) ## Four virtual machines: provision, write, kill, catch up, verify, show
	python -m tools.lab tour

lab-down: $(VENV_READY) ## End the lab's machines and delete their state
	python -m tools.lab down

bench:: $(VENV_READY)
	if [ -e "$${TOWLINE_LAB:-build/lab}/ssh_config" ]; then
	    python -m bench.vms
	    python -m bench.links
	else
	    echo "bench: the part in the VMs needs a lab that is up: make lab"
	fi

# SCENARIO=cascade runs one of molecule's scenarios; left out: all.
SCENARIO ?=
test-vm:: $(VENV_READY) ## The VM lab's scenarios; ends with the test runner's summaries
	mkdir -p build
	status=0
	{
	    if [ -z "$(SCENARIO)" ]; then
	        molecule test --all
	    else
	        molecule create && molecule test --scenario-name "$(SCENARIO)" --destroy never || status=$$?
	        molecule destroy || status=$$?
	        exit $$status
	    fi
	} 2>&1 | tee build/molecule.log || status=$$?
	echo "test-vm: the test runner's own summaries (build/molecule.log has everything):"
	grep -oE '[0-9]+ (passed|failed|error|skipped)[a-z0-9, ]* in [0-9.]+s.*' build/molecule.log || status=1
	exit $$status
