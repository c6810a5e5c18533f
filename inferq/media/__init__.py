"""Files that callers name: what they may write, how it is fetched, and what it turns out to be.

It owns the guard between callers' URLs and our network, and the child process that looks into callers' files. It must
not know where files are kept, nor any endpoint.
"""
