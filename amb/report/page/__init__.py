"""The HTML report: what stands on it (`sections`, `summary`, `attacks`), and how it is put together (`build`)."""
