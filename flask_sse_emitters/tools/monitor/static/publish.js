import { $ } from "./dom.js";
import { readers } from "./figures.js";
import { many } from "./numbers.js";

const form = $("publish");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { channel, event: name, text, is_json: isJson } = form.elements;
  const sent = { channel: channel.value.trim(), event: name.value, text: text.value, is_json: isJson.checked };
  showResult("", "");
  if (!sent.channel) {
    showResult("", "Enter a channel.");
    channel.focus();
    return;
  }
  if (!(await confirmPublish(sent.channel))) return;
  try {
    const { id, clients } = await publish(sent);
    showResult(`Published as ${id}. ${describeReaders(clients)}`, "");
  } catch (error) {
    showResult("", error.message);
  }
});

function showResult(result, error) {
  $("publish-result").textContent = result;
  $("publish-error").textContent = error;
}

function describeReaders(clients) {
  if (clients === null) return "";
  return clients ? `${many(clients, "client reads", "clients read")} the channel now.` : "No client reads the channel now.";
}

/** Ask the operator to confirm: real clients get the event. */
function confirmPublish(channel) {
  const dialog = $("confirm");
  $("confirm-title").textContent = `Publish to ${channel}?`;
  $("confirm-readers").textContent = describeReaders(readers(channel)) || "It is not known here how many clients read the channel.";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

$("confirm-no").addEventListener("click", () => $("confirm").close(""));
$("confirm-yes").addEventListener("click", () => $("confirm").close("yes"));

async function publish(event) {
  let answer;
  try {
    answer = await fetch("publish", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(event),
      signal: AbortSignal.timeout(15_000),
    });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  const result = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(result.error ?? `The server answered ${answer.status}.`);
  return result;
}
