"""What happens to a batch when processes die? A proxy kills a process after chosen effects, in many runs
side by side.
"""
