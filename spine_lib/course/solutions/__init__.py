"""Solutions and inputs that are not handed out: leave this folder out of a copy for a class."""
