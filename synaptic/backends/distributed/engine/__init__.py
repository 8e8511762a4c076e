"""llama.cpp builds: fetched, built, examined."""
