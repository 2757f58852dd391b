"""The public functions and the Sorting that they return. `import spikecrsae` offers them; import them from there."""
