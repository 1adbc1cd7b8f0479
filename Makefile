# Every task lives in dev.py, which also runs without make: python dev.py test
PYTHON ?= $(shell command -v python3 || command -v python || echo python3)

.PHONY: demo test test-all lint wheel setup clean
demo test test-all lint wheel setup clean:
	@$(PYTHON) dev.py $@
