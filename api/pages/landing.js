// The landing page: keeps the model cards fresh, copies lines, and tries a prompt. Talks to this server only.
"use strict";
const find = (selector) => document.querySelector(selector);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (button && button.classList.contains("copy")) {
    await navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }
  if (button && button.dataset.prompt) {
    find("#prompt").value = button.dataset.prompt;
    find("#prompt").focus();
  }
});

async function refresh() {
  try {
    const page = new DOMParser().parseFromString(await (await fetch("/")).text(), "text/html");
    for (const id of ["#models", "#status"]) find(id).innerHTML = page.querySelector(id).innerHTML;
  } catch {
    find("#status").textContent = "the server does not answer";
  }
}
setInterval(() => { if (!document.hidden) refresh(); }, 4000);

async function ask(key, prompt, show) {
  const answer = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "Authorization": "Bearer " + key, "Content-Type": "application/json" },
    body: JSON.stringify({ model: find("#model").value, stream: true, messages: [{ role: "user", content: prompt }] }),
  });
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const text of events) {
      const data = text.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n").trim();
      if (!data || data === "[DONE]") continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      show((chunk.choices[0] && chunk.choices[0].delta.content) || "");
    }
  }
}

const form = find("#try");
if (form) {
  const key = find("#key");
  key.value = sessionStorage.getItem("inferq-key") || "";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    sessionStorage.setItem("inferq-key", key.value);
    const answer = find("#answer");
    answer.textContent = "";
    try {
      await ask(key.value.trim(), find("#prompt").value, (text) => { answer.textContent += text; });
    } catch (error) {
      answer.textContent += error.message;
    }
  });
}
