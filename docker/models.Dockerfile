# A model repository and nothing else, for the chart's models.image; what is built is the repository's folder:
# docker build -f docker/models.Dockerfile -t triptych-models model_repository
FROM busybox:1.37

COPY --chown=1000:1000 . /models

USER 1000
