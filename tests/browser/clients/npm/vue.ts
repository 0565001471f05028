// Vue: components that come and go, each with both composables.
import { createApp, defineComponent, h, nextTick, onMounted, shallowRef } from "vue";
import { useChannel, useEvents } from "flask-sse-emitters/vue";
import { note, type Wanted } from "./wanted.js";

const wanted = shallowRef<Wanted>({ readers: 0, channels: [] });
window.show = (other) => {
  wanted.value = other;
  return nextTick();
};

const Reader = defineComponent(() => {
  onMounted(() => (window.mounts += 1));
  const channels = () => wanted.value.channels;
  const { state, events, error, gaps, clear } = useEvents("/events", channels, () => ({
    limit: 3,
    ...(wanted.value.since && { since: wanted.value.since }),
    onEvent: (event) => note(`${wanted.value.label ?? ""} ${event.data}`),
    onReaderChange: () => note("another reader"),
  }));
  const { event } = useChannel("/events", channels, { name: "created" });
  return () => {
    if (events.value.some(({ channel }) => !channels().includes(channel))) note("events of another channel");
    return h("section", [
      h("output", state.value),
      h("ol", events.value.map(({ id, data }) => h("li", { key: id }, data))),
      h("b", event.value?.data),
      h("i", gaps.value),
      h("em", error.value?.status),
      h("button", { onClick: clear }, "Clear"),
    ]);
  };
});

createApp(() =>
  Array.from({ length: wanted.value.readers }, (_, number) => h(Reader, { key: `${number} ${wanted.value.login}` })),
).mount("#root");
