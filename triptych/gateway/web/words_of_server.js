// What the server says, in Chinese; what it names is in braces. The first sentence that fits is taken.

export const SERVER_ZH = {
  // Warnings, beside a picture.
  "not taken from the picture: {settings}": "未从图片中读取：{settings}",
  "scheduler: the picture's sampler is not one of those here": "采样器：这里没有图片所用的采样器",
  "strength: this picture began from another one, which its file does not hold":
    "重绘幅度：这张图片以另一张图片为起点，而文件中没有那张图片",
  "the prompts are longer than this file can carry, and stand here cut to {most} letters":
    "提示词超出了文件的容量，这里只保留 {most} 个字符",
  "{field} is longer than {length} tokens; cut off: {part}": "{field}超过 {length} 个词元，截去了：{part}",
  "{field}: the bracket after {part} is read as a character": "{field}：{part} 之后的括号按普通字符读取",
  "{field}: {parts} is never closed and weighs all that follows": "{field}：{parts} 没有闭合，其后的全部内容都被加权",
  "{field}: {parts} is read as words: no LoRA, no weights": "{field}：{parts} 按普通文字读取：不是 LoRA，也不是权重",
  "{field}: {parts} is read as words": "{field}：{parts} 按普通文字读取",
  "{field}: this model does not know {parts}": "{field}：这个模型不认识 {parts}",
  "{field} is not used at guidance_scale {scale}": "提示词引导系数为 {scale} 时不使用{field}",
  "{field} is not used by this model": "这个模型不使用{field}",
  "{field} is not used where no step is between guidance_start and guidance_stop":
    "引导起点与引导终点之间没有任何一步，因此不使用{field}",

  // Why a picture's settings are not read, and what a key is for.
  "the file does not say how the picture was made": "文件中没有写明图片是怎样生成的",
  "this is no PNG, JPEG or WebP": "这不是 PNG、JPEG 或 WebP 文件",
  "the request's body has more than {most} bytes": "请求超过 {most} 字节",
  "model: got {model}; allowed with this key: {models}": "此密钥不能使用模型 {model}；可以使用：{models}",

  // What is allowed: numbers.
  "a whole number": "整数",
  "a number": "数字",
  "{low} or more": "不小于 {low}",
  "{high} or less": "不大于 {high}",
  "an integer from {low} to {high}: the text encoder has {layers} layers":
    "{low} 到 {high} 的整数：文本编码器有 {layers} 层",
  "an integer from {low} to {high}": "{low} 到 {high} 的整数",
  "a number from {low} to {high}": "{low} 到 {high} 的数字",
  "a whole number from {low} to {high}, as {width} x {height} is too large: at most {across} x {down} in total":
    "{low} 到 {high} 的整数；{width} x {height} 太大：总共最多 {across} x {down}",
  "a whole number from {low} to {high}": "{low} 到 {high} 的整数",
  "{below} or {above}, the nearest sizes": "{below} 或 {above}（最接近的尺寸）",

  // Prompts.
  "a text": "文字",
  "at most {most} characters": "最多 {most} 个字符",
  "a text of at most {most} bytes of UTF-8, without NUL": "文字，UTF-8 编码不超过 {most} 字节，且不含 NUL 字符",
  "a text, not a whole request in one": "文字，而不是写成文字的整个请求",
  "at most {most} chunks of tokens; together the prompts need {number}":
    "最多 {most} 段词元；这些提示词一共需要 {number} 段",
  "words without weights, of one chunk of tokens: this model's text encoder, exported through Paddle, takes tokens alone":
    "不带权重、不超过一段词元的词语：这个模型的文本编码器经 Paddle 导出，只接受词元",
  "0: this model's text encoder, exported through Paddle, takes tokens alone":
    "0：这个模型的文本编码器经 Paddle 导出，只接受词元",
  "weights from {low} to {high}": "从 {low} 到 {high} 的权重",
  "at most {most} brackets in each other": "括号最多嵌套 {most} 层",
  "words, (words:1.2), [words] and BREAK; AND, which joins several prompts, is not served":
    "词语、(词语:1.2)、[词语] 和 BREAK；不支持用 AND 连接多个提示词",
  "words, (words:1.2), [words] and BREAK; alternation, [a|b], is not served":
    "词语、(词语:1.2)、[词语] 和 BREAK；不支持交替 [a|b]",
  "words, (words:1.2), [words] and BREAK; a change at a step, [a:b:0.4], is not served":
    "词语、(词语:1.2)、[词语] 和 BREAK；不支持在某一步改变 [a:b:0.4]",
  "words, (words:1.2), [words] and BREAK; a network in the {field}, but for <lora:name:scale> in a prompt, is not served":
    "词语、(词语:1.2)、[词语] 和 BREAK；除提示词中的 <lora:名称:权重> 外，不支持在{field}中写网络",

  // Schedulers, and settings that do not go together.
  "'{values}' or '{last}'": "'{values}' 或 '{last}'",
  "{names}; {more} also with {ends} at its end; or a class name of diffusers":
    "{names}；{more} 末尾还可以加 {ends}；或 diffusers 的类名",
  "none with scheduler {scheduler}, whose timesteps are fixed": "不设置：采样器 {scheduler} 的时间步是固定的",
  "none, but with scheduler {names} or {last}": "不设置，除非采样器为 {names} 或 {last}",
  "1 to {most}, for scheduler {scheduler} with this original_inference_steps":
    "1 到 {most}：采样器 {scheduler} 的 original_inference_steps 如此",
  "1 to {most}": "1 到 {most}",
  "at least {least}, for scheduler pndm without skip_prk_steps": "至少 {least}：采样器 pndm 没有 skip_prk_steps",
  "fewer: {spacing} spacing gives two steps the same sigma": "少一些：{spacing} 间隔使两步的 sigma 相同",
  "fewer: with steps_offset {offset} the first timestep would be {first}, the last is {last}":
    "少一些：steps_offset 为 {offset} 时，第一个时间步会是 {first}，而最大的是 {last}",
  "enough for a step: {steps} steps times strength, rounded down, must be at least 1":
    "至少够一步：{steps} 步乘以重绘幅度，舍去小数后须不小于 1",
  "at most guidance_stop, which is {stop}": "不大于引导终点（{stop}）",
  "1 with LoRAs": "使用 LoRA 时为 1",
  "1: this model has no {file}, export it again": "1：这个模型没有 {file}，请重新导出",
  "1: unet is run by a backend that keeps no features, or this Triton hands on no names":
    "1：运行 unet 的后端不保留特征，或者这个 Triton 不传递名称",
  "1 with heun, which calls the UNet twice at a timestep": "使用 heun 时为 1：它在每个时间步调用 UNet 两次",

  // Models and LoRAs.
  "none: no model is loaded": "无：没有加载任何模型",
  "a list": "列表",
  "an object": "对象",
  "at most {most} LoRAs": "最多 {most} 个 LoRA",
  "at least {least} of them": "至少 {least} 个",
  "at most {most} of them": "最多 {most} 个",
  "at least {least} characters": "至少 {least} 个字符",
  "each name once": "每个名称只用一次",
  "<lora:name:scale>, with one number": "<lora:名称:权重>，权重是一个数字",
  "scales from {low} to {high}": "从 {low} 到 {high} 的权重",
  "the name of a file in the folder of LoRAs, at most {most} bytes": "LoRA 文件夹中的文件名，最多 {most} 字节",
  "the names of files in its folder, as {names}": "文件夹中的文件名，例如 {names}",
  "the names of files in its folder: {names}": "文件夹中的文件名：{names}",
  "none: this model has one text encoder and is told no sizes, unlike SDXL":
    "无：此模型只有一个文本编码器，也不读尺寸，与 SDXL 不同",
  "none: this server has no LoRA files": "无：这个服务器没有 LoRA 文件",
  "none: the networks of this server are run by a backend that cannot add LoRAs":
    "无：这个服务器运行网络的后端不能加入 LoRA",
  "none: this network takes no LoRAs: {reason}": "无：这个网络不接受 LoRA：{reason}",
  "a LoRA in a .safetensors file, but {reason}": ".safetensors 文件中的 LoRA；这个文件：{reason}",
  "a LoRA for {served}, but it is for {model} ({reason})": "用于 {served} 的 LoRA；这个用于 {model}（{reason}）",
  "a file that stays as it is while it is used: this one was replaced": "使用期间保持不变的文件；这个被替换了",

  // Pictures to start from.
  "base64 of a PNG, JPEG or WebP file of at most {most} bytes, or a data: address":
    "不超过 {most} 字节的 PNG、JPEG 或 WebP 文件，写成 base64 或 data: 地址",
  "a PNG, JPEG or WebP file that is whole": "完整的 PNG、JPEG 或 WebP 文件",
  "a PNG, JPEG or WebP file": "PNG、JPEG 或 WebP 文件",
  "a picture that is not animated": "不是动画的图片",
  "at most {most} pixels": "最多 {most} 像素",
  "with no {field} in the request, a picture whose own is {allowed}": "没有填{field}时，图片自身的须为：{allowed}",
  "an object with height and width, and no keys but {keys}": "含高度和宽度的对象，此外只能有这些键：{keys}",
  "one of {names}": "其中之一：{names}",
  "none with image or strength": "有作为起点的图片或重绘幅度时不设置",
  "none without image": "没有作为起点的图片时不设置",
  "none: this model has no vae_encoder, which reads pictures": "无：这个模型没有读取图片的 vae_encoder",
  "a picture and its mask, in which this model paints": "一张图片和它的蒙版：这个模型在其中作画",
};
