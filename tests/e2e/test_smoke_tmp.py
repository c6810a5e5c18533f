from tests.e2e.stack import Stack, chat
def test_it(stack: Stack):
    r = stack.post("/v1/chat/completions", chat("hi", "fast"))
    assert r.status_code == 200, r.text
    stack.until_ready("demo-chat", "demo-embed")
    print(stack.replicas()["fast"])
    print(stack.job(stack.first_moody))
    print(stack.engine("fast").cmdline())
