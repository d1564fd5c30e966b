# The verbs. Every one of them installs what it needs first (`setup` is quick when nothing is missing).
CARGO ?= cargo

.PHONY: help setup build demo test lint docs bench soak mutants fuzz kube vm e2e crds reference

help:
	@echo 'make demo    a three-node cluster on this machine: policies applied, connections measured'
	@echo 'make test    every test'
	@echo 'make build   target/release/calico and target/release/calico-cni'
	@echo 'make lint    rustfmt, clippy, licences'
	@echo 'make docs    the book of docs/, in target/book'
	@echo 'make bench   the benchmarks'
	@echo 'make soak    many more random clusters and cases than make test has: CLUSTERS=5000 SEED=1 ROUNDS=20 KILLS=300'
	@echo 'make mutants breaks the specification, the selectors and the calculation one place at a time: which breaks no test sees'
	@echo 'make fuzz    the fuzz targets, 30 seconds each'
	@echo 'make crds    manifests anew, from the types'
	@echo 'make reference   the generated pages of docs/reference anew, from the code'
	@echo 'make kube    etcd and the control plane of Kubernetes, which tests run against: minutes, once'
	@echo 'make vm      a kernel and what boots it in a virtual machine, for tests of what this one lacks: seconds, once'
	@echo 'make e2e     pods on two real kubelets with containerd, our agent and plugin, one policy'
	@echo 'make setup   what the others need: Debian packages, kubectl'

setup:
	@dev/setup.sh

# Quick when it is there. Only the tests need it, so only they pay for it.
kube: setup
	@dev/kube/build.sh cluster >/dev/null

# Likewise.
vm: setup
	@dev/setup.sh qemu-system-x86_64:qemu-system-x86 busybox:busybox-static xz:xz-utils ipvsadm:ipvsadm
	@dev/vm/build.sh >/dev/null

build: setup
	$(CARGO) build --release --locked --bins

demo: build
	target/release/calico sandbox demo --examples examples

# One test process at a time: several of them start whole clusters. The programs are built with the
# tests, in one go: built before, without the tests' features, everything would be compiled twice.
# The property tests start from a fixed seed: a red test means that the change broke something, never
# that the dice fell otherwise. `make soak` throws them anew.
test: kube vm
	PROPTEST_RNG_SEED=$${PROPTEST_RNG_SEED:-1} $(CARGO) test --release --locked --no-fail-fast --workspace

e2e: kube
	@dev/setup.sh containerd:containerd runc:runc busybox:busybox-static /usr/lib/cni/loopback:containernetworking-plugins
	$(CARGO) test --release --locked --workspace --no-run
	$(CARGO) test --release --locked --workspace --test e2e -- --nocapture

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	dev/deny.sh

# What the pages say of the code is tested by `make test`.
docs: setup
	dev/docs.sh

bench: build
	@dev/setup.sh valgrind:valgrind python3:python3
	$(CARGO) bench --locked --workspace
	bench/instructions.sh

# The property tests of everything that needs no kernel, from new seeds, twenty times; then the kernel's
# verdicts against the specification's, on many random clusters.
soak: build
	for round in $$(seq $${ROUNDS:-20}); do \
	  $(CARGO) test --release --locked $(addprefix -p ,api calc ipam model rules selector store) || exit 1; done
	KILLS=$${KILLS:-300} $(CARGO) test --release --locked -p store --test killed -- --nocapture
	CLUSTERS=$${CLUSTERS:-5000} $(CARGO) test --release --locked -p nft --test verdicts -- --nocapture
	SETS=$${SETS:-200} CHURN=$${CHURN:-40} $(CARGO) test --release --locked -p calico --test random --test churn -- --nocapture

# Hours for all of it. Less, for instance: MUTANTS='--package selector', MUTANTS='--file core/policy/src/rule.rs'.
mutants: setup
	dev/mutants.sh $(MUTANTS)

crds: setup
	$(CARGO) run --release --locked -p xtask -- crds

reference: setup
	BLESS=1 $(CARGO) test --release --locked --workspace --test reference --bin calico --lib -- reference

fuzz: setup
	dev/fuzz.sh
