"""The public functions and the Sorting that they return. Import them from `spikecrsae`."""
