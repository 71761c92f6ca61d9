// Browsers start no worker for a page that is opened from a folder. This one runs in a
// hidden frame instead, so that the search works there without a server.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.scope = frame.contentWindow;
      this.loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
      window.addEventListener("message", (event) => {
        if (event.source !== this.scope) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        this.onmessage?.(message);
      });
      const runtime = `
        self.postMessage = (data) => parent.postMessage(data, "*");
        self.importScripts = async (...urls) => {
          for (const url of urls)
            await new Promise((resolve) => {
              const script = document.createElement("script");
              script.src = url;
              script.onload = resolve;
              document.body.append(script);
            });
        };`;
      const page = this.scope.document;
      page.open();
      page.write(`<body><script>${runtime}<\/script><script src="${url}"><\/script></body>`);
      page.close();
    }

    postMessage(data) {
      this.loaded.then(() =>
        this.scope.dispatchEvent(new MessageEvent("message", { data })),
      );
    }
  };
}
