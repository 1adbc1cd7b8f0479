# Every task lives in dev.py, which also runs without make: python dev.py test
PYTHON ?= $(shell command -v python3 || command -v python || echo python3)

.PHONY: demo test test-all lint wheel setup clean fuzz
demo test test-all lint wheel setup clean:
	@$(PYTHON) dev.py $@

# make fuzz MINUTES=30 [SEED=a1b2c3d4]
fuzz:
	@$(PYTHON) dev.py fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))
