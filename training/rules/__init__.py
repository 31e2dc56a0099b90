"""Categories of harm, the rule on minors, and the words both are written in."""
