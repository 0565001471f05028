// React's StrictMode mounts twice in its development version alone.
export default {
  base: "./",
  build: { minify: false, rollupOptions: { input: ["react.html", "vue.html"] } },
};
