"""What is done to an archive as a whole: adjusted as one network, and monitored.

Import from the modules: `adjusting`, ...
"""
