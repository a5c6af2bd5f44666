"""Where the settings of a verb come from: flag, else environment, else file, else default; each read one way."""
